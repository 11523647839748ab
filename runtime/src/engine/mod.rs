//! Engines: what runs a machine.
//!
//! [`Engine::start`] gives a running [`Machine`]. Two exist: `kvm`, our VMM on hardware virtualization, and `qemu`, the
//! same guest on QEMU's emulation with our device code behind vhost-user. What an engine cannot do answers
//! [`ErrorKind::Unsupported`].

mod kvm;
mod probe;
pub(crate) mod process;
mod qemu;
mod tsc;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::shared_fs::SharedFs;
use crate::{Error, ErrorKind, Paths, ResultExt};

pub use probe::{Probe, probe};
pub use process::Ended;
pub use qemu::{QEMU, find as qemu_program};

/// What the user asked for, or (never `Auto`) what was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    Auto,
    Kvm,
    Qemu,
}

impl EngineChoice {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }

    /// `DEWAR_ENGINE`, or `Auto` when it is not set.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it names no engine.
    pub fn from_env() -> Result<Self, Error> {
        match std::env::var("DEWAR_ENGINE") {
            Ok(text) if !text.is_empty() => text.parse(),
            _ => Ok(Self::Auto),
        }
    }
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "qemu" => Ok(Self::Qemu),
            other => Err(Error::new(ErrorKind::Invalid, format!("Unknown engine {other}: give auto, kvm or qemu"))),
        }
    }
}

/// A machine that is to be started.
#[derive(Debug)]
pub struct MachineSpec<'a> {
    /// Folder for sockets and logs.
    pub dir: &'a Path,
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    /// Appended to the kernel's command line.
    pub kernel_parameters: &'a [String],
    pub vcpus: u8,
    pub memory_mib: u64,
    pub disks: Vec<Disk>,
    /// What of the host it shares; `None`: no such device.
    pub(crate) shared_fs: Option<&'a SharedFs>,
}

/// A disk: files one behind the other, each padded to 4096 bytes.
#[derive(Debug, Clone)]
pub struct Disk {
    pub id: &'static str,
    pub files: Vec<PathBuf>,
    pub read_only: bool,
}

impl MachineSpec<'_> {
    /// Where the device's host side listens; see `dewar_vmm_api::VsockConfig::path`.
    #[must_use]
    pub fn vsock_path(&self) -> PathBuf {
        self.dir.join("vsock.sock")
    }

    fn serial_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }
}

/// One way to run machines.
pub trait Engine {
    /// Starts a machine; returns while the guest boots.
    ///
    /// # Errors
    /// [`ErrorKind::Machine`] when the VMM cannot be started.
    fn start(&self, spec: &MachineSpec<'_>) -> Result<Box<dyn Machine>, Error>;

    /// Which one it is.
    fn choice(&self) -> EngineChoice;
}

/// A running machine. Dropping it kills it.
pub trait Machine: Send {
    /// A descriptor that becomes readable when the machine's process has ended.
    fn ended_fd(&self) -> std::os::fd::BorrowedFd<'_>;

    /// Stops the guest for good: when this returns it does not run, and never will. What is left is to kill the machine.
    fn halt(&self);

    /// Its processes that have not been waited for.
    fn pids(&self) -> Vec<i32>;

    /// Kills the machine without waiting for it to be gone; one that ends by itself at that moment keeps its own reason.
    fn kill(&self);

    /// Waits for the end.
    fn wait(&mut self) -> Ended;

    /// Guest CID 3's vsock path.
    fn vsock_path(&self) -> &Path;

    /// The last lines of the guest's console.
    fn console_tail(&self) -> String;
}

/// Connects to a vsock port of the guest by its host-side socket (`CONNECT <port>`), and sends `first` right behind.
///
/// # Errors
/// [`ErrorKind::Machine`] when the machine does not answer.
pub fn connect_vsock(path: &Path, port: u32, first: &[u8]) -> Result<UnixStream, Error> {
    use std::io::{Read, Write};
    let fail = || format!("Cannot connect to port {port} of the guest");
    let mut socket = UnixStream::connect(path).kind(ErrorKind::Machine, fail)?;
    let mut hello = format!("CONNECT {port}\n").into_bytes();
    hello.extend_from_slice(first);
    socket.write_all(&hello).kind(ErrorKind::Machine, fail)?;
    // "OK <port>\n", read byte by byte: what follows belongs to the stream.
    let mut line = Vec::with_capacity(16);
    while line.last() != Some(&b'\n') && line.len() < 32 {
        let mut byte = [0];
        socket.read_exact(&mut byte).kind(ErrorKind::Machine, fail)?;
        line.push(byte[0]);
    }
    if !line.starts_with(b"OK ") {
        return Err(Error::new(ErrorKind::Machine, fail()));
    }
    Ok(socket)
}

/// A kernel command line and what a user adds to it.
fn with_parameters(line: &str, more: &[String]) -> String {
    more.iter().fold(line.to_owned(), |line, parameter| format!("{line} {parameter}"))
}

/// Settles on an engine. With `Auto`, KVM where the probe finds that it runs ring 0 on hardware, else QEMU; the answer's
/// second part is one line that says why it fell back.
///
/// # Errors
/// [`ErrorKind::Machine`] with what to do when what was asked for cannot run, or nothing can.
pub fn choose(paths: &Paths, choice: EngineChoice) -> Result<(Box<dyn Engine>, Option<String>), Error> {
    let kvm = || -> Box<dyn Engine> { Box::new(kvm::Kvm { program: paths.bin.join("dewar-vmm") }) };
    let qemu = || -> Result<Box<dyn Engine>, Error> {
        let program = qemu::find().ok_or_else(|| {
            Error::new(ErrorKind::Machine, format!("{QEMU} is not installed: run `apt-get install {}`", qemu::PACKAGE))
        })?;
        Ok(Box::new(qemu::Qemu { program, backend: paths.bin.join("dewar-vmm") }))
    };
    match choice {
        EngineChoice::Qemu => Ok((qemu()?, None)),
        EngineChoice::Kvm => {
            let probe = probe(paths)?;
            if probe.is_usable() {
                return Ok((kvm(), None));
            }
            let advice = "use --engine qemu, or a host with hardware virtualization";
            Err(Error::new(ErrorKind::Machine, format!("The kvm engine cannot run here: {}: {advice}", probe.reason())))
        }
        EngineChoice::Auto => {
            let probe = probe(paths)?;
            if probe.is_usable() {
                return Ok((kvm(), None));
            }
            let engine = qemu().map_err(|e| {
                let why = format!("No engine can run here: {}; {e}", probe.reason());
                Error::new(ErrorKind::Machine, why)
            })?;
            Ok((engine, Some(format!("using the slower qemu engine: {}", probe.reason()))))
        }
    }
}
