//! The same work by others: crun and runc on the same root filesystem, QEMU's microvm with KVM on the same kernel, and our
//! VMM by itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use dewar_vmm_api::MachineConfig;
use serde_json::{Value, json};

use crate::guest::MARK;
use crate::start::LIB;
use crate::stopwatch::{command, repeat, time, time_to_mark};
use crate::{RUNS, report};

/// What `dewar run` gives a container without a limit.
const MEMORY_MIB: u64 = 512;
/// Of the runtime's engines; what is left out makes no difference to a boot without devices.
const CMDLINE: &str = "console=ttyS0 loglevel=3 panic=-1 tsc=reliable no_timer_check random.trust_cpu=on noreplace-smp \
                       percpu_alloc=page rcupdate.rcu_expedited=1";

pub fn measure() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/root").context("cannot make a folder")?;
    containers(dir.path())?;
    machines(dir.path())
}

fn containers(dir: &Path) -> Result<()> {
    let bundle = dir.join("bundle");
    make_bundle(&bundle, &["/bin/true"])?;
    let sleeper = dir.join("sleeper");
    make_bundle(&sleeper, &["/bin/sleep", "1000000"])?;
    let floor = repeat(RUNS, || time(&mut command("/bin/busybox true")))?;
    report("a plain process", "ms", &floor);
    for runtime in ["crun", "runc"] {
        eprintln!("bench: {runtime}");
        let run = || time(Command::new(runtime).args(["run", "--bundle"]).arg(&bundle).arg("one"));
        report(&format!("{runtime} run, first after boot"), "ms", &[run()?]);
        report(&format!("{runtime} run"), "ms", &repeat(RUNS, run)?);
        time(Command::new(runtime).args(["run", "-d", "--bundle"]).arg(&sleeper).arg("two"))?;
        let exec = || time(Command::new(runtime).args(["exec", "two", "/bin/true"]));
        exec()?;
        report(&format!("{runtime} exec"), "ms", &repeat(RUNS, exec)?);
        time(Command::new(runtime).args(["delete", "-f", "two"]))?;
    }
    Ok(())
}

/// Unpacks the default image (an OCI archive of one layer) and writes runc's own default configuration beside it.
pub fn make_bundle(dir: &Path, args: &[&str]) -> Result<()> {
    let (blobs, rootfs) = (dir.join("image"), dir.join("rootfs"));
    fs::create_dir_all(&blobs).context("cannot make a bundle")?;
    fs::create_dir_all(&rootfs).context("cannot make a bundle")?;
    time(command("tar -xf").arg(Path::new(LIB).join("busybox.tar")).arg("-C").arg(&blobs))?;
    let manifest = fs::read(blobs.join("manifest.json")).context("cannot read the image")?;
    let manifest: Value = serde_json::from_slice(&manifest).context("the image's manifest is damaged")?;
    let layer = manifest.pointer("/0/Layers/0").and_then(Value::as_str).context("the image has no layer")?;
    time(command("tar -xf").arg(blobs.join(layer)).arg("-C").arg(&rootfs))?;
    time(command("runc spec").current_dir(dir))?;
    let path = dir.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).context("cannot read a bundle")?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(args);
    fs::write(&path, spec.to_string()).context("cannot write a bundle")
}

fn machines(dir: &Path) -> Result<()> {
    let kernel = Path::new(LIB).join("vmlinux");
    let initrd = dir.join("initrd");
    let this = fs::read("/proc/self/exe").context("cannot read this program")?;
    dewar_rootfs::initramfs::write(&this, File::create(&initrd)?).context("cannot write an initramfs")?;
    eprintln!("bench: VMM alone");
    for memory in [128, MEMORY_MIB] {
        let config = vmm_config(dir, &kernel, &initrd, memory)?;
        let vmm = || {
            let mut vmm = command("/opt/dewar/bin/dewar-vmm run --serial-stdout --config");
            time_to_mark(vmm.arg(&config).stderr(std::process::Stdio::null()), MARK)
        };
        vmm()?;
        report(&format!("dewar-vmm to init, {memory} MiB"), "ms", &repeat(RUNS, vmm)?);
    }
    eprintln!("bench: QEMU microvm");
    let memory = format!("{MEMORY_MIB}M");
    let qemu = || {
        let mut qemu = command(
            "qemu-system-x86_64 -M microvm,isa-serial=on,acpi=off,rtc=off,pit=off,pic=off,x-option-roms=off -cpu host -accel \
             kvm -smp 1 -display none -no-reboot -no-user-config -nodefaults -serial stdio",
        );
        qemu.args(["-m", &memory, "-append", &format!("{CMDLINE} reboot=t")]).arg("-kernel").arg(&kernel);
        time_to_mark(qemu.arg("-initrd").arg(&initrd), MARK)
    };
    qemu()?;
    report(&format!("QEMU microvm to init, {MEMORY_MIB} MiB"), "ms", &repeat(RUNS, qemu)?);
    Ok(())
}

fn vmm_config(dir: &Path, kernel: &Path, initrd: &Path, memory_mib: u64) -> Result<PathBuf> {
    let config = MachineConfig {
        kernel: kernel.to_path_buf(),
        initrd: Some(initrd.to_path_buf()),
        cmdline: format!("{CMDLINE} reboot=k"),
        vcpus: 1,
        memory_mib,
        disks: Vec::new(),
        vsock: None,
        fs: None,
        console_log: None,
        serial_log: dir.join("serial.log"),
        control: None,
        shared_memory: false,
    };
    let path = dir.join(format!("vmm-{memory_mib}.json"));
    fs::write(&path, serde_json::to_vec(&config)?).context("cannot write a machine's configuration")?;
    Ok(path)
}
