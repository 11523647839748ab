//! Makes the virtio devices that a configuration asks for, in the order in which they take their windows.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dewar_devices::blk::{self, Blk, BlkError};
use dewar_devices::console::Console;
use dewar_devices::fs::{self, Fs, FsError};
use dewar_devices::rng::Rng;
use dewar_devices::sink::TailFile;
use dewar_devices::vsock::{self, Vsock, VsockError};
use dewar_virtio::VirtioDevice;
use dewar_vmm_api::{DiskConfig, FsConfig, MachineConfig, SERIAL_KEPT};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum DeviceError {
    #[error("Could not open the disk file {}", path.display())]
    DiskFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Could not make the disk {id}")]
    Disk {
        id: String,
        #[source]
        source: BlkError,
    },
    #[error("Could not create the console log {}", path.display())]
    ConsoleLog {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Could not connect to the server of the shared filesystem at {}", path.display())]
    FsServer {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Could not make the shared filesystem")]
    Fs {
        #[source]
        source: FsError,
    },
    #[error("Could not make the vsock device")]
    Vsock {
        #[source]
        source: VsockError,
    },
}

/// A device, its name in metrics, and where it counts.
pub struct Made {
    pub name: String,
    pub device: Box<dyn VirtioDevice>,
    pub counters: Counters,
}

/// What a device counts.
pub enum Counters {
    Disk(Arc<blk::handler::Counters>),
    Vsock(Arc<vsock::Counters>),
    Fs(Arc<fs::Counters>),
    Nothing,
}

impl Counters {
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Disk(counters) => counters.list().to_vec(),
            Self::Vsock(counters) => counters.list().to_vec(),
            Self::Fs(counters) => counters.list().to_vec(),
            Self::Nothing => Vec::new(),
        }
    }
}

impl Made {
    fn new(name: impl Into<String>, device: impl VirtioDevice + 'static, counters: Counters) -> Self {
        Self { name: name.into(), device: Box::new(device), counters }
    }
}

/// Opens a disk's files and makes its device.
///
/// # Errors
/// When a file cannot be opened or the files make no disk.
pub fn disk(config: &DiskConfig) -> Result<Blk, DeviceError> {
    let open = |path: &PathBuf| open_disk_file(path, config.read_only);
    let files = config.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    Blk::new(files, config.read_only, &config.id).map_err(|source| DeviceError::Disk { id: config.id.clone(), source })
}

/// Connects to a shared filesystem's server and makes its device.
///
/// # Errors
/// When the server does not listen, or the tag is none.
pub fn shared_fs(config: &FsConfig) -> Result<Fs, DeviceError> {
    let server = UnixStream::connect(&config.server);
    let server = server.map_err(|source| DeviceError::FsServer { path: config.server.clone(), source })?;
    Fs::new(&config.tag, server).map_err(|source| DeviceError::Fs { source })
}

fn open_disk_file(path: &Path, read_only: bool) -> Result<File, DeviceError> {
    File::options()
        .read(true)
        .write(!read_only)
        .open(path)
        .map_err(|source| DeviceError::DiskFile { path: path.to_owned(), source })
}

/// # Errors
/// When something on the host that a device needs cannot be opened.
pub fn make(config: &MachineConfig) -> Result<Vec<Made>, DeviceError> {
    let mut made = Vec::with_capacity(config.disks.len() + 3);
    for each in &config.disks {
        let device = disk(each)?;
        let counters = Counters::Disk(device.counters());
        made.push(Made::new(format!("disk-{}", each.id), device, counters));
    }
    if let Some(vsock) = &config.vsock {
        let device = Vsock::new(u64::from(vsock.guest_cid), vsock.path.clone())
            .map_err(|source| DeviceError::Vsock { source })?;
        let counters = Counters::Vsock(device.counters());
        made.push(Made::new("vsock", device, counters));
    }
    if let Some(config) = &config.fs {
        let device = shared_fs(config)?;
        let counters = Counters::Fs(device.counters());
        made.push(Made::new("fs", device, counters));
    }
    made.push(Made::new("rng", Rng::new(), Counters::Nothing));
    if let Some(path) = &config.console_log {
        let log = File::create(path).and_then(|file| TailFile::new(file, SERIAL_KEPT));
        let log = log.map_err(|source| DeviceError::ConsoleLog { path: path.clone(), source })?;
        made.push(Made::new("console", Console::new(Box::new(log), None), Counters::Nothing));
    }
    Ok(made)
}
