//! Bundles: a root filesystem of busybox, and an ordinary configuration that a case changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::{Container, Finished, Host};

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const SETS: [&str; 4] = ["bounding", "effective", "permitted", "inheritable"];

/// A bundle on disk; its configuration is written when it is used.
#[derive(Debug)]
pub struct Bundle<'a> {
    host: &'a Host,
    pub path: PathBuf,
    pub config: Value,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(host: &'a Host, path: &Path) -> Result<Self> {
        let rootfs = path.join("rootfs");
        for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"] {
            fs::create_dir_all(rootfs.join(dir)).with_context(|| format!("cannot make {dir}"))?;
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let (busybox, applets) = busybox()?;
        fs::copy(busybox, rootfs.join("bin/busybox")).context("cannot copy busybox")?;
        for applet in applets {
            symlink("busybox", rootfs.join("bin").join(applet)).with_context(|| format!("cannot link {applet}"))?;
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        Ok(Self { host, path: path.to_owned(), config: ordinary() })
    }

    /// A file of the root filesystem, as the host sees it.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.path.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Sets a value by its JSON pointer; objects on the way are made.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match key.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => &mut place[key],
            };
        }
        *place = value;
        self
    }

    /// Adds to a list by its JSON pointer, which is made when there is none.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        match self.config.pointer_mut(pointer).and_then(Value::as_array_mut) {
            Some(list) => list.push(value),
            None => drop(self.set(pointer, json!([value]))),
        }
        self
    }

    /// Adds capabilities to all sets but the ambient one.
    pub fn grant(&mut self, capabilities: &[&str]) -> &mut Self {
        for set in SETS {
            for capability in capabilities {
                self.push(&format!("/process/capabilities/{set}"), json!(capability));
            }
        }
        self
    }

    /// Takes a namespace out of the list.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Adds a bind mount.
    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) -> &mut Self {
        let options: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
        self.push(
            "/mounts",
            json!({ "destination": destination, "type": "bind", "source": source, "options": options }),
        )
    }

    /// The process is `sh -c SCRIPT`.
    pub fn script(&mut self, script: &str) -> &mut Self {
        self.set("/process/args", json!(["sh", "-c", script]))
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<()> {
        fs::write(self.path.join("config.json"), serde_json::to_vec_pretty(&self.config)?)
            .context("cannot write a bundle")
    }

    /// `run`, to its end.
    ///
    /// # Errors
    /// When it cannot be called; any exit code is an answer.
    pub fn run(&self) -> Result<Finished> {
        self.run_with(&[])
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&self, args: &[&str]) -> Result<Finished> {
        self.write()?;
        let id = self.host.id();
        let command = self.host.command(&["run"]).arg("--bundle").arg(&self.path);
        let finished = args.iter().fold(command, |command, arg| command.arg(arg)).arg(&id).finish();
        if !finished.as_ref().is_ok_and(|finished| finished.code == 0) {
            self.host.runtime(&["delete", "--force", &id])?;
        }
        finished
    }

    /// Runs `sh -c SCRIPT`, which must exit with 0; what it wrote.
    ///
    /// # Errors
    /// When it does not.
    pub fn sh(&mut self, script: &str) -> Result<String> {
        self.script(script).run()?.success()
    }

    /// `create`, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn create(&self) -> Result<Container<'a>> {
        self.create_with(&[])
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn create_with(&self, args: &[&str]) -> Result<Container<'a>> {
        let (finished, container) = self.try_create(args)?;
        finished.success()?;
        Ok(container)
    }

    /// `create`, however it comes out.
    ///
    /// # Errors
    /// When it cannot be called.
    pub fn try_create(&self, args: &[&str]) -> Result<(Finished, Container<'a>)> {
        self.write()?;
        Container::try_create(self.host, &self.path, args)
    }

    /// `create`, which must fail; the reason that it gave.
    ///
    /// # Errors
    /// When it does not fail.
    pub fn is_refused(&self) -> Result<String> {
        let (finished, container) = self.try_create(&[])?;
        finished.fails()?;
        container.call(&["state"])?.fails()?;
        Ok(finished.err)
    }
}

/// A static busybox and its applets.
fn busybox() -> Result<&'static (PathBuf, Vec<String>)> {
    static BUSYBOX: OnceLock<Result<(PathBuf, Vec<String>), String>> = OnceLock::new();
    let find = || -> Result<(PathBuf, Vec<String>)> {
        let path = PathBuf::from("/bin/busybox");
        let output =
            Command::new(&path).arg("--list").output().context("cannot run busybox: install busybox-static")?;
        ensure!(output.status.success(), "busybox does not list its applets");
        let text = String::from_utf8_lossy(&output.stdout);
        Ok((path, text.lines().filter(|applet| *applet != "busybox").map(str::to_owned).collect()))
    };
    BUSYBOX.get_or_init(|| find().map_err(|e| format!("{e:#}"))).as_ref().map_err(|e| anyhow!("{e}"))
}

/// What `runc spec` would write, near enough.
fn ordinary() -> Value {
    let mut capabilities = json!({ "ambient": [] });
    for set in SETS {
        capabilities[set] = json!(CAPABILITIES);
    }
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/bin", "HOME=/root", "TERM=xterm"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "conformance",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
