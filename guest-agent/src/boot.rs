//! From the kernel's first process to one that serves: mounts, loopback, the connection to the host, clock and entropy.
//!
//! The initramfs holds this binary and nothing else; a tmpfs takes its place as the root, because the initial root
//! filesystem cannot be pivoted away from.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
};

use dewar_protocol::{Hello, HelloAck, MAGIC, RPC_PORT, STREAM_PORT, VERSION, read_frame, write_frame};
use rustix::{
    mount::{MountFlags, mount, mount_move},
    process::{DumpableBehavior, Resource, Rlimit, chdir, chroot, set_dumpable_behavior, setrlimit},
    time::{ClockId, Timespec, clock_settime},
};

use crate::{
    cgroup,
    container::rootfs,
    error::{Doing, Failure, Result},
    sys::{network, power, signal, vsock},
};

/// Open files a process of a container may have unless it is told otherwise, as docker has it.
const OPEN_FILES: u64 = 1 << 20;

/// What serving needs.
pub struct Booted {
    /// The connection to the host, after the handshake.
    pub rpc: OwnedFd,
    /// Where the host connects streams to.
    pub listener: OwnedFd,
}

/// Makes this machine one that can hold containers, and says hello to the host.
pub fn boot(started_ns: u64) -> Result<Booted> {
    mount_everything()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "Protecting the agent's memory failed".into())?;
    let limit = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    setrlimit(Resource::Nofile, limit).doing(|| "Raising the limit of open files failed".into())?;
    signal::block_only(&[libc::SIGCHLD]).doing(|| "Blocking SIGCHLD failed".into())?;
    network::loopback_up().doing(|| "Bringing up the loopback interface failed".into())?;
    // A machine has little more memory than its container may use, and would refuse reservations that a host of any size
    // grants; what is used is bounded by the container's limit (kernel: Documentation/vm/overcommit-accounting.rst).
    fs::write("/proc/sys/vm/overcommit_memory", "1").doing(|| "Letting memory be reserved freely failed".into())?;
    cgroup::mount_and_delegate().doing(|| "Setting up cgroups failed".into())?;
    // Before the hello: the host may connect streams as soon as it has read it.
    let listener = vsock::listen(STREAM_PORT).doing(|| "Listening for streams failed".into())?;
    let rpc = vsock::connect_host(RPC_PORT).doing(|| format!("Connecting to port {RPC_PORT} of the host failed"))?;
    let mut stream = File::from(rpc);
    let ack = greet(&mut stream, started_ns)?;
    accept_gifts(&ack)?;
    Ok(Booted { rpc: stream.into(), listener })
}

fn mount_everything() -> Result<()> {
    let root = "/newroot";
    let failed = || "Making the root filesystem failed".to_owned();
    fs::create_dir_all(root).doing(failed)?;
    mount("root", root, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755").doing(failed)?;
    chdir(root).doing(failed)?;
    for directory in ["proc", "sys", "dev", rootfs::BASE.trim_start_matches('/')] {
        fs::create_dir(directory).doing(failed)?;
    }
    mount_move(".", "/").doing(failed)?;
    chroot(".").doing(failed)?;
    chdir("/").doing(failed)?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts = [
        ("proc", "/proc", plain),
        ("sysfs", "/sys", plain),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
    ];
    for (kind, target, flags) in mounts {
        mount(kind, target, kind, flags, None::<&std::ffi::CStr>).doing(|| format!("Mounting {target} failed"))?;
    }
    Ok(())
}

fn greet(stream: &mut File, started_ns: u64) -> Result<HelloAck> {
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        started_ns,
        ready_ns: crate::server::uptime_ns(),
    };
    write_frame(stream, &hello).doing(|| "Saying hello to the host failed".into())?;
    let ack: HelloAck = read_frame(stream)
        .doing(|| "Reading the host's answer failed".into())?
        .ok_or_else(|| Failure::state("The host refused this agent"))?;
    if ack.version != VERSION {
        return Err(Failure::unsupported(format!(
            "The host speaks version {} of the protocol and this agent version {VERSION}",
            ack.version
        )));
    }
    Ok(ack)
}

/// Takes the host's time and entropy.
fn accept_gifts(ack: &HelloAck) -> Result<()> {
    let random = File::options().write(true).open("/dev/urandom").doing(|| "Opening the entropy pool failed".into())?;
    power::add_entropy(&random, ack.entropy).doing(|| "Adding entropy failed".into())?;
    let time = Timespec {
        tv_sec: i64::try_from(ack.realtime_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ack.realtime_ns % 1_000_000_000).unwrap_or(0),
    };
    clock_settime(ClockId::Realtime, time).doing(|| "Setting the clock failed".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use dewar_protocol::ErrorKind;

    use super::*;

    fn answered_with(version: u32) -> Result<HelloAck> {
        let (agent, mut host) = UnixStream::pair().expect("a socket pair");
        let answering = std::thread::spawn(move || {
            let hello: Hello = read_frame(&mut host).expect("reads").expect("a hello");
            write_frame(&mut host, &HelloAck { version, realtime_ns: 1, entropy: [0; 32] }).expect("writes");
            hello
        });
        let ack = greet(&mut File::from(OwnedFd::from(agent)), 5);
        let hello = answering.join().expect("joins");
        assert_eq!((hello.magic, hello.version, hello.started_ns), (MAGIC, VERSION, 5));
        ack
    }

    #[test]
    fn the_handshake_checks_the_version() {
        assert_eq!(answered_with(VERSION).expect("accepted").realtime_ns, 1);
        assert_eq!(answered_with(VERSION + 1).expect_err("refused").kind, ErrorKind::Unsupported);
    }

    #[test]
    fn a_host_that_hangs_up_is_an_error() {
        let (agent, host) = UnixStream::pair().expect("a socket pair");
        host.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert!(greet(&mut File::from(OwnedFd::from(agent)), 5).is_err());
    }
}
