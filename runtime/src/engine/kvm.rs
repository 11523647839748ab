//! The kvm engine: one `dewar-vmm run` process per machine.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dewar_protocol::SHARED_TAG;
use dewar_vmm_api::{DiskConfig, Ending, FsConfig, MachineConfig, VsockConfig};

use super::process::{Ended, Process, describe, tail};
use super::{Engine, EngineChoice, Machine, MachineSpec};
use crate::{Error, ResultExt};

/// Kernel command line of a guest on our VMM. `reboot=k`: the VMM's keyboard controller port resets.
/// The rest is timed in kernel-config/README.md.
const CMDLINE: &str = "console=ttyS0 loglevel=3 panic=-1 reboot=k tsc=reliable no_timer_check random.trust_cpu=on \
                       noreplace-smp percpu_alloc=page rcupdate.rcu_expedited=1";

pub(super) struct Kvm {
    pub(super) program: PathBuf,
}

impl Engine for Kvm {
    fn start(&self, spec: &MachineSpec<'_>) -> Result<Box<dyn Machine>, Error> {
        let config = MachineConfig {
            kernel: spec.kernel.to_path_buf(),
            initrd: Some(spec.initrd.to_path_buf()),
            cmdline: super::with_parameters(CMDLINE, spec.kernel_parameters),
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disks: spec
                .disks
                .iter()
                .map(|d| DiskConfig { id: d.id.into(), files: d.files.clone(), read_only: d.read_only })
                .collect(),
            vsock: Some(VsockConfig { guest_cid: 3, path: spec.vsock_path() }),
            fs: spec.shared_fs.map(|fs| FsConfig { tag: SHARED_TAG.into(), server: fs.socket().to_path_buf() }),
            console_log: None,
            serial_log: spec.serial_log(),
            control: Some(spec.dir.join("vmm.sock")),
            shared_memory: false,
        };
        let config = serde_json::to_vec(&config).context(|| "Cannot encode a machine's configuration".into())?;
        let mut input = memory_file(&config).context(|| "Cannot hand over a machine's configuration".into())?;
        input.rewind().context(|| "Cannot hand over a machine's configuration".into())?;
        let errors = spec.dir.join("vmm.log");
        let stderr = File::create(&errors).context(|| format!("Cannot write {}", errors.display()))?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--config", "-"]).stdin(input).stdout(Stdio::null()).stderr(stderr);
        let process = Process::spawn(&mut command)?;
        Ok(Box::new(KvmMachine { process, vsock: spec.vsock_path(), serial: spec.serial_log(), errors }))
    }

    fn choice(&self) -> EngineChoice {
        EngineChoice::Kvm
    }
}

fn memory_file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("dewar-config", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

struct KvmMachine {
    process: Process,
    vsock: PathBuf,
    serial: PathBuf,
    errors: PathBuf,
}

impl Machine for KvmMachine {
    fn ended_fd(&self) -> BorrowedFd<'_> {
        self.process.fd()
    }

    fn halt(&self) {
        self.process.stop();
    }

    fn pids(&self) -> Vec<i32> {
        self.process.pid().into_iter().collect()
    }

    fn kill(&self) {
        self.process.kill();
    }

    fn wait(&mut self) -> Ended {
        let status = self.process.wait();
        let ending = status.and_then(|s| s.code()).and_then(Ending::from_code);
        let reason = match ending {
            Some(Ending::HostError) => tail(&self.errors, 2048).trim_end().to_owned(),
            Some(ending) => ending.reason().into(),
            None => format!("the VMM {}", describe(status)),
        };
        Ended { orderly: ending == Some(Ending::PowerOff), reason }
    }

    fn vsock_path(&self) -> &Path {
        &self.vsock
    }

    fn console_tail(&self) -> String {
        tail(&self.serial, 4096)
    }
}
