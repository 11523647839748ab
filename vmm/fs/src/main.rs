//! One machine's file server. Started by the runtime with the control socket as its standard input, and ends with that or
//! with the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Barrier, mpsc};

use anyhow::Context;
use clap::Parser;
use dewar_fs::serve::Link;
use dewar_fs::thread::Thread;
use dewar_fs::{FileSystem, Limits, control, jail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Requests carried out at once.
const THREADS: usize = 8;

#[derive(Parser)]
#[command(name = "dewar-fs", version, about = "Serves files to one microVM. Started by dewar; not meant to be typed.")]
struct Arguments {
    /// Socket to listen on for the one connection of the virtio-fs device
    #[arg(long)]
    socket: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dewar-fs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let control = rustix::stdio::stdin();
    let limits = Limits::of_descriptors(jail::raise_descriptor_limit());
    let file_system = Arc::new(FileSystem::new(limits));
    let Some(device) = connect(&arguments.socket, control, &file_system)? else { return Ok(()) };
    let descriptors = jail::enter()?;
    let link = Link::new(device).context("Could not duplicate the device's socket")?;
    start(&file_system, Arc::new(link), descriptors)?;
    while control::serve_one(&file_system, control).context("Could not go on serving the runtime")? {}
    Ok(())
}

/// Waits for the device, and meanwhile serves the runtime. `None`: the runtime has hung up before there was a device.
fn connect(path: &Path, control: BorrowedFd<'_>, file_system: &FileSystem) -> anyhow::Result<Option<UnixStream>> {
    let failed = || format!("Could not serve the socket {}", path.display());
    let listener = UnixListener::bind(path).with_context(failed)?;
    control::greet(control).context("Could not tell the runtime that the socket listens")?;
    let device = loop {
        let mut fds = [PollFd::new(&control, PollFlags::IN), PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.context("Could not wait for the device")?,
        };
        let [asked, connected] = fds.map(|fd| !fd.revents().is_empty());
        if asked && !control::serve_one(file_system, control).context("Could not serve the runtime")? {
            break None;
        }
        if connected {
            break Some(listener.accept().with_context(failed)?.0);
        }
    };
    std::fs::remove_file(path).with_context(failed)?;
    Ok(device)
}

/// Starts the threads, and lets them serve once the last system calls are given up.
fn start(file_system: &Arc<FileSystem>, link: Arc<Link>, descriptors: OwnedFd) -> anyhow::Result<()> {
    let descriptors = Arc::new(descriptors);
    let (ready, entered) = mpsc::channel();
    let barrier = Arc::new(Barrier::new(THREADS.saturating_add(1)));
    for _ in 0..THREADS {
        let (file_system, link, descriptors) = (file_system.clone(), link.clone(), descriptors.clone());
        let (ready, barrier) = (ready.clone(), barrier.clone());
        let body = move || {
            let thread = Thread::enter(descriptors.as_fd());
            // The receiver is there for as long as nobody has failed.
            let _ = ready.send(thread.as_ref().map(drop).map_err(|error| *error));
            let Ok(thread) = thread else { return };
            barrier.wait();
            let code = match link.serve(&file_system, &thread) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("dewar-fs: serving the device failed: {error}");
                    1
                }
            };
            // The machine is gone, and nobody else needs this process.
            std::process::exit(code);
        };
        std::thread::Builder::new().name("fuse".into()).spawn(body).context("Could not start a thread")?;
    }
    for _ in 0..THREADS {
        entered.recv().context("A thread has ended")?.context("Could not set a thread up")?;
    }
    jail::restrict_system_calls()?;
    barrier.wait();
    Ok(())
}
