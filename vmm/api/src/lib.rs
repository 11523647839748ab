//! The contract between the host runtime and the VMM process: what a machine is made of, what can be asked of a running
//! one, and how it ended. Imports nothing of ours, so that the runtime need not know the VMM.

pub mod fs_link;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A whole machine, given to `dewar-vmm run` as JSON on a file descriptor or in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// ELF or bzImage.
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    /// What the runtime wants on the kernel command line; the VMM adds its devices.
    pub cmdline: String,
    /// 1 to 32.
    pub vcpus: u8,
    pub memory_mib: u64,
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    pub vsock: Option<VsockConfig>,
    /// A shared filesystem; `None`: no such device.
    #[serde(default)]
    pub fs: Option<FsConfig>,
    /// A second console (`hvc0`) whose output goes to this file; `None`: no such device.
    #[serde(default)]
    pub console_log: Option<PathBuf>,
    /// Where the last [`SERIAL_KEPT`] bytes of the serial console are kept while and after the machine runs.
    pub serial_log: PathBuf,
    /// Unix socket to listen on for [`ControlRequest`]s.
    pub control: Option<PathBuf>,
    /// Guest memory as a memfd that other processes can share, rather than anonymous huge pages.
    #[serde(default)]
    pub shared_memory: bool,
}

/// A virtio-blk disk: the files one behind the other, each padded with zeros to a multiple of 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// At most 20 bytes, read by the guest as the disk's serial.
    pub id: String,
    /// At least one; exactly one when writable.
    pub files: Vec<PathBuf>,
    pub read_only: bool,
}

/// A virtio-fs device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsConfig {
    /// 1 to 36 bytes, by which the guest mounts it.
    pub tag: String,
    /// Unix socket of the server that answers its requests; see [`fs_link`].
    pub server: PathBuf,
}

/// A virtio-vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// At least 3.
    pub guest_cid: u32,
    /// A host program that wants guest port N connects here, writes `CONNECT N\n` and reads `OK <port>\n`. A guest
    /// program that connects to host port N reaches the unix socket `<path>_N`.
    pub path: PathBuf,
}

/// Bytes of serial output kept for error reports.
pub const SERIAL_KEPT: usize = 64 << 10;

/// Port whose byte write of [`EXIT_POWER_OFF`] ends the machine in an orderly way. The guest agent's contract has the same
/// two constants; they stand here again because the VMM knows nothing of agents.
pub const EXIT_IO_PORT: u16 = 0x501;
pub const EXIT_POWER_OFF: u8 = 0x10;

/// One JSON object per line on the control socket; each is answered by one [`ControlReply`] line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Stops all vCPUs; answers when none runs.
    Pause,
    Resume,
    Metrics,
    /// Ends the machine at once, as pulling the plug does.
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum ControlReply {
    Done,
    Metrics(Metrics),
    Error { message: String },
}

/// Figures of a running machine. Times in nanoseconds since the VMM's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    pub state: String,
    /// (phase, when it was finished)
    pub phases: Vec<(String, u64)>,
    /// (device, counter, value)
    pub devices: Vec<(String, String, u64)>,
}

/// How a machine ended. The VMM process exits with [`Ending::code`] and has written [`Ending::reason`] on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    PowerOff,
    Reset,
    Panic,
    TripleFault,
    /// KVM gave up on the guest (`KVM_EXIT_INTERNAL_ERROR`, `KVM_EXIT_FAIL_ENTRY`).
    InternalError,
    /// [`ControlRequest::Stop`] or SIGTERM.
    Stopped,
    /// The VMM itself could not go on.
    HostError,
}

impl Ending {
    const ALL: [Self; 7] = [
        Self::PowerOff,
        Self::HostError,
        Self::Reset,
        Self::Panic,
        Self::TripleFault,
        Self::InternalError,
        Self::Stopped,
    ];

    /// Exit code of the VMM process.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::HostError => 1,
            Self::Reset => 10,
            Self::Panic => 11,
            Self::TripleFault => 12,
            Self::InternalError => 13,
            Self::Stopped => 14,
        }
    }

    /// The ending that an exit code stands for.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|e| i32::from(e.code()) == code)
    }

    /// A clause for messages: "the guest …".
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PowerOff => "the guest powered off",
            Self::Reset => "the guest reset the machine",
            Self::Panic => "the guest kernel panicked",
            Self::TripleFault => "the guest ended in a triple fault",
            Self::InternalError => "KVM could not go on executing the guest",
            Self::Stopped => "the machine was stopped from the host",
            Self::HostError => "the VMM failed",
        }
    }
}

/// What `dewar-vmm probe` found out about `/dev/kvm`, as JSON on stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum ProbeVerdict {
    /// Ring 0 runs on hardware.
    Real {
        ns_per_instruction: TenthNanos,
    },
    /// Ring 0 is emulated, or an instruction that every kernel needs failed.
    Emulated {
        ns_per_instruction: Option<TenthNanos>,
        detail: String,
    },
    Missing {
        detail: String,
    },
    NoPermission {
        detail: String,
    },
    Failed {
        detail: String,
    },
}

/// A duration in tenths of a nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TenthNanos(pub u64);

impl std::fmt::Display for TenthNanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} ns", self.0 / 10, self.0 % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_code_of_its_own() {
        for ending in Ending::ALL {
            assert_eq!(Ending::from_code(i32::from(ending.code())), Some(ending));
        }
        assert_eq!(Ending::from_code(99), None);
    }
}
