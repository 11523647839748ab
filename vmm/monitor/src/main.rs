//! The VMM process: `run` holds one microVM from its configuration to its end, `serve` serves the same devices to QEMU,
//! `probe` says whether `/dev/kvm` can run a kernel.

mod control;
mod descriptor;
mod run;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dewar_machine::Phases;
use dewar_vmm_api::Ending;

/// Seconds after which a probe that hangs is ended by the kernel.
const PROBE_LIMIT: u32 = 5;

#[derive(Parser)]
#[command(name = "dewar-vmm", version, about = "Runs one microVM. Started by dewar; not meant to be typed.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a machine; the exit code says how it ended
    Run(RunArguments),
    /// Serve vsock, a shared filesystem and disks to QEMU over vhost-user sockets, until QEMU hangs up
    Serve(ServeArguments),
    /// Say as JSON whether /dev/kvm can run a kernel
    Probe,
}

#[derive(clap::Args)]
struct RunArguments {
    /// The machine's configuration as JSON; - is stdin
    #[arg(long)]
    config: PathBuf,
    /// Pass the serial console on to stdout
    #[arg(long)]
    serial_stdout: bool,
    /// Print when each step of the start was finished, on stderr
    #[arg(long)]
    phases: bool,
    /// Write the exit code as one byte to this file descriptor before the machine is taken apart
    #[arg(long)]
    ending_fd: Option<i32>,
}

#[derive(clap::Args)]
struct ServeArguments {
    /// CID of the guest's vsock device
    #[arg(long, requires = "vsock_path", requires = "vsock_socket")]
    vsock_cid: Option<u32>,
    /// Where host programs reach the guest's vsock ports
    #[arg(long, requires = "vsock_cid")]
    vsock_path: Option<PathBuf>,
    /// Socket to serve the vsock device on
    #[arg(long, requires = "vsock_cid")]
    vsock_socket: Option<PathBuf>,
    /// Tag of the guest's shared filesystem
    #[arg(long, requires = "fs_server", requires = "fs_socket")]
    fs_tag: Option<String>,
    /// Socket of the server that answers for the shared filesystem
    #[arg(long, requires = "fs_tag")]
    fs_server: Option<PathBuf>,
    /// Socket to serve the shared filesystem's device on
    #[arg(long, requires = "fs_tag")]
    fs_socket: Option<PathBuf>,
    /// A disk and the socket to serve it on; a comma in a path is written twice
    #[arg(long = "disk", value_name = "socket=S,id=ID[,ro],file=F[,file=F...]")]
    disks: Vec<serve::DiskArgument>,
    /// Write one byte to this file descriptor when all sockets listen
    #[arg(long)]
    ready_fd: Option<i32>,
}

fn main() -> ExitCode {
    let phases = Phases::start();
    let result = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments, phases),
        Verb::Serve(arguments) => serve::serve(arguments),
        Verb::Probe => probe(),
    };
    match result {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(error) => {
            eprintln!("dewar-vmm: {error:#}");
            ExitCode::from(Ending::HostError.code())
        }
    }
}

fn probe() -> anyhow::Result<Ending> {
    // SAFETY: no precondition; a hanging KVM must not hang whoever asks.
    unsafe { libc::alarm(PROBE_LIMIT) };
    println!("{}", serde_json::to_string(&dewar_machine::probe::probe())?);
    Ok(Ending::PowerOff)
}
