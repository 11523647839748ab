//! The qemu engine: `qemu-system-x86_64 -M microvm` with emulation (TCG), for hosts without usable KVM.
//!
//! vsock and disks are our own device code: `dewar-vmm serve` offers them over vhost-user, so that a device is written
//! once. Guest memory is a shared memfd, which vhost-user needs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use dewar_protocol::SHARED_TAG;
use dewar_vmm_api::SERIAL_KEPT;

use super::process::{Ended, Process, describe, printable, tail};
use super::tsc::TscRate;
use super::{Engine, EngineChoice, Machine, MachineSpec};
use crate::{Error, ErrorKind, ResultExt};

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// Debian's package of it.
pub(super) const PACKAGE: &str = "qemu-system-x86";
/// Bytes of the console that an error's text is taken from.
const CONSOLE_SHOWN: usize = 4096;
/// `reboot=t`: polling for a keyboard controller would cost 650,000 port reads. The rest is timed in kernel-config/README.md.
const CMDLINE: &str = "console=ttyS0 loglevel=3 panic=-1 reboot=t random.trust_cpu=on no_timer_check noreplace-smp \
                       percpu_alloc=page rcupdate.rcu_expedited=1";

/// Where it is, when it is on PATH.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(QEMU)).find(|p| p.is_file())
}

pub(super) struct Qemu {
    pub(super) program: PathBuf,
    /// `dewar-vmm`
    pub(super) backend: PathBuf,
}

impl Qemu {
    fn start_backend(&self, spec: &MachineSpec<'_>, errors: &Path) -> Result<Process, Error> {
        let (ready, ready_writer) = rustix::pipe::pipe().context(|| "Cannot make a pipe".into())?;
        let mut command = Command::new(&self.backend);
        command.arg("serve").arg("--vsock-cid").arg("3").arg("--vsock-path").arg(spec.vsock_path());
        command.arg("--vsock-socket").arg(spec.dir.join("vhost-vsock.sock"));
        if let Some(fs) = spec.shared_fs {
            command.args(["--fs-tag", SHARED_TAG]).arg("--fs-server").arg(fs.socket());
            command.arg("--fs-socket").arg(spec.dir.join("vhost-fs.sock"));
        }
        for disk in &spec.disks {
            let mut text = format!("socket={},id={}", quote(&disk_socket(spec.dir, disk.id)), disk.id);
            if disk.read_only {
                text.push_str(",ro");
            }
            for file in &disk.files {
                text.push_str(",file=");
                text.push_str(&quote(file));
            }
            command.arg("--disk").arg(text);
        }
        command.arg("--ready-fd").arg(ready_writer.as_raw_fd().to_string());
        let stderr = File::create(errors).context(|| format!("Cannot write {}", errors.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut process = Process::spawn(&mut command)?;
        drop(ready_writer);
        wait_ready(ready).kind(ErrorKind::Machine, || {
            // It closes the pipe as it ends: only then its last words are all there.
            process.wait();
            format!("The device server did not start: {}", tail(errors, 2048).trim_end())
        })?;
        Ok(process)
    }

    fn command(&self, spec: &MachineSpec<'_>, cmdline: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([
                "-M",
                "microvm,isa-serial=on,acpi=off,memory-backend=ram",
                "-cpu",
                "max",
                "-accel",
                "tcg,tb-size=64",
            ])
            .args([
                "-global",
                "virtio-mmio.force-legacy=false",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-smp", &spec.vcpus.to_string(), "-m", &format!("{}M", spec.memory_mib)])
            .args(["-object", &format!("memory-backend-memfd,id=ram,share=on,size={}M", spec.memory_mib)])
            .arg("-kernel")
            .arg(spec.kernel)
            .arg("-initrd")
            .arg(spec.initrd)
            .args(["-append", cmdline])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=0x01", "-device", "virtio-rng-device"])
            // Standard output, but not as "stdio", which would hang the port up at the end of standard input.
            .args(["-chardev", "file,id=serial,path=/proc/self/fd/1"])
            .args(["-serial", "chardev:serial"]);
        // QEMU gives the microvm's virtio-mmio slots to devices in their order here, and the kernel finds the slots in
        // ascending order: the first disk becomes the first.
        let vsock = spec.dir.join("vhost-vsock.sock");
        command.args(["-chardev", &format!("socket,id=vsock,path={}", quote(&vsock))]);
        command.args(["-device", "vhost-user-vsock-device,chardev=vsock"]);
        if spec.shared_fs.is_some() {
            let fs = spec.dir.join("vhost-fs.sock");
            command.args(["-chardev", &format!("socket,id=fs,path={}", quote(&fs))]);
            command.args(["-device", &format!("vhost-user-fs-device,chardev=fs,tag={SHARED_TAG},queue-size=128")]);
        }
        for disk in &spec.disks {
            let id = disk.id;
            command.args(["-chardev", &format!("socket,id=c-{id},path={}", quote(&disk_socket(spec.dir, id)))]);
            command.args(["-device", &format!("vhost-user-blk,chardev=c-{id},num-queues=1,queue-size=256")]);
        }
        command
    }
}

impl Engine for Qemu {
    fn start(&self, spec: &MachineSpec<'_>) -> Result<Box<dyn Machine>, Error> {
        let errors = spec.dir.join("qemu.log");
        let tsc = TscRate::begin();
        let backend = self.start_backend(spec, &spec.dir.join("vmm.log"))?;
        let stderr = File::create(&errors).context(|| format!("Cannot write {}", errors.display()))?;
        let mut command =
            self.command(spec, &super::with_parameters(&cmdline(spec.vcpus, tsc.khz()), spec.kernel_parameters));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut process = Process::spawn(&mut command)?;
        let console = Console::keep(process.take_stdout())?;
        Ok(Box::new(QemuMachine { process, backend, vsock: spec.vsock_path(), console, errors }))
    }

    fn choice(&self) -> EngineChoice {
        EngineChoice::Qemu
    }
}

/// Without the counter's rate the kernel would calibrate it against a timer, which fails on a busy host. One CPU is served by
/// that other timer alone; several need those of their local APICs.
fn cmdline(vcpus: u8, tsc_khz: Option<u64>) -> String {
    let mut line = CMDLINE.to_owned();
    if let Some(khz) = tsc_khz {
        line.push_str(&format!(" tsc=reliable tsc_early_khz={khz}"));
    }
    if vcpus == 1 {
        line.push_str(" noapictimer");
    }
    line
}

/// One byte says that the sockets listen; end of file that the server ended.
fn wait_ready(ready: OwnedFd) -> std::io::Result<()> {
    File::from(ready).read_exact(&mut [0])
}

fn disk_socket(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("vhost-{id}.sock"))
}

/// In QEMU's option syntax, and in that of `dewar-vmm serve`, a comma in a value is doubled.
fn quote(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

struct QemuMachine {
    process: Process,
    backend: Process,
    vsock: PathBuf,
    console: Console,
    errors: PathBuf,
}

/// The last bytes of the guest's serial console: a thread reads them all, so that a flood costs no file and no memory.
struct Console {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    fn keep(source: Option<ChildStdout>) -> Result<Self, Error> {
        let mut source = source.ok_or_else(|| Error::new(ErrorKind::Internal, "QEMU has no standard output"))?;
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let filled = Arc::clone(&kept);
        let read = move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                let mut kept = filled.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(buffer.iter().take(n));
                let excess = kept.len().saturating_sub(SERIAL_KEPT);
                kept.drain(..excess);
            }
        };
        let reader = std::thread::Builder::new().name("console".into()).spawn(read);
        let reader = reader.context(|| "Cannot start a thread".into())?;
        Ok(Self { kept, reader: Some(reader) })
    }

    /// Waits for what QEMU wrote before it ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn tail(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let last: Vec<u8> = kept.iter().skip(kept.len().saturating_sub(CONSOLE_SHOWN)).copied().collect();
        printable(&last)
    }
}

impl Machine for QemuMachine {
    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.process.fd()
    }

    fn halt(&self) {
        self.process.stop();
    }

    fn pids(&self) -> Vec<i32> {
        [&self.process, &self.backend].into_iter().filter_map(Process::pid).collect()
    }

    fn kill(&self) {
        self.process.kill();
        self.backend.kill();
    }

    fn wait(&mut self) -> Ended {
        let status = self.process.wait();
        self.backend.kill();
        self.backend.wait();
        self.console.finish();
        // isa-debug-exit: value * 2 + 1.
        let power_off = i32::from(dewar_protocol::EXIT_POWER_OFF) * 2 + 1;
        let reason = match status.and_then(|s| s.code()) {
            Some(code) if code == power_off => "the guest powered off".into(),
            Some(0) if self.console_tail().contains("Kernel panic") => "the guest kernel panicked".into(),
            Some(0) => "the guest reset the machine".into(),
            Some(1) => format!("QEMU failed: {}", tail(&self.errors, 2048).trim_end()),
            _ => format!("QEMU {}", describe(status)),
        };
        Ended { orderly: status.and_then(|s| s.code()) == Some(power_off), reason }
    }

    fn vsock_path(&self) -> &Path {
        &self.vsock
    }

    fn console_tail(&self) -> String {
        self.console.tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_what_it_could_not_measure() {
        assert!(cmdline(1, Some(2_600_000)).ends_with(" tsc=reliable tsc_early_khz=2600000 noapictimer"));
        assert_eq!(cmdline(2, None), CMDLINE);
    }

    #[test]
    fn a_comma_in_a_path_does_not_become_an_option() {
        assert_eq!(quote(Path::new("/tmp/a,share=off/b")), "/tmp/a,,share=off/b");
    }

    #[test]
    fn a_flooded_console_keeps_its_end_and_no_more() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 300000 /dev/zero; echo the end"]).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).expect("starts");
        let mut console = Console::keep(process.take_stdout()).expect("reads");
        console.finish();
        assert_eq!(console.kept.lock().expect("whole").len(), SERIAL_KEPT);
        assert_eq!(console.tail(), "the end\n");
    }
}
