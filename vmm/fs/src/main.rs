//! One machine's file server. Started by the runtime with its control socket as standard input; ends with that
//! socket or the device's.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Barrier, mpsc};

use anyhow::Context;
use clap::Parser;
use dewar_fs::serve::Link;
use dewar_fs::thread::Thread;
use dewar_fs::{FileSystem, Limits, control, jail};

/// Requests carried out at once.
const THREADS: usize = 8;

#[derive(Parser)]
#[command(name = "dewar-fs", version, about = "Serves files to one microVM. Started by dewar; not meant to be typed.")]
struct Arguments {
    /// Where to listen for the virtio-fs device, which connects once
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
    // SAFETY: descriptor 0 is this process's standard input, which nothing else uses.
    let control = unsafe { OwnedFd::from_raw_fd(0) };
    let path = &arguments.socket;
    let listener = UnixListener::bind(path).with_context(|| format!("Could not listen on {}", path.display()))?;
    control::ready(&control).context("Could not answer the runtime")?;
    let (device, _) = listener.accept().context("Could not accept the device's connection")?;
    // Nobody else shall come; the path goes with its folder at the latest.
    drop(listener);
    drop(std::fs::remove_file(path));
    let limits = Limits::of_descriptors(jail::raise_descriptor_limit());
    let descriptors = jail::enter()?;
    let file_system = Arc::new(FileSystem::with_descriptors(limits, descriptors));
    let link = Arc::new(Link::new(device).context("Could not duplicate the device's socket")?);
    start(&file_system, &link)?;
    control::run(&file_system, &control).context("Could not go on serving the runtime")
}

/// Starts the threads, and lets them serve once the last system calls are given up.
fn start(file_system: &Arc<FileSystem>, link: &Arc<Link>) -> anyhow::Result<()> {
    let (ready, entered) = mpsc::channel();
    let barrier = Arc::new(Barrier::new(THREADS.saturating_add(1)));
    for _ in 0..THREADS {
        let (file_system, link, ready, barrier) = (file_system.clone(), link.clone(), ready.clone(), barrier.clone());
        let body = move || {
            let thread = Thread::enter(file_system.descriptors());
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
    // What is looked up once, at the first question, is looked up now: the calls for it are about to be given up.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let _ = rustix::param::page_size();
    jail::restrict_system_calls()?;
    barrier.wait();
    Ok(())
}
