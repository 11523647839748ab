//! containerd, by its own client and its runc shim with Dewar as the binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Machines, Once, busybox_archive, daemon, missing, runtime};
use crate::{Finished, Host, Outcome, Session, Terminal};

cases_with! { "containerd_", with;
    runs_and_removes,
    runs_on_a_terminal,
    tasks_are_driven,
}

const IMAGE: &str = "docker.io/library/busybox:latest";

/// `ctr`, with a daemon of its own.
#[derive(Debug)]
pub struct Ctr<'a> {
    pub host: &'a Host,
    dir: PathBuf,
}

fn with(host: &Host, case: fn(&Ctr<'_>) -> Result<()>) -> Result<Outcome> {
    if let Some(skipped) = missing(&["ctr", "containerd", "containerd-shim-runc-v2"]) {
        return Ok(skipped);
    }
    let ctr = Ctr { host, dir: host.root.join("containerd") };
    ctr.start_once()?;
    let machines = Machines::now(host);
    let result = case(&ctr);
    let clean = ctr.clean_up().and_then(|()| machines.nothing_new(host));
    result?;
    clean?;
    Ok(Outcome::Passed)
}

impl Ctr<'_> {
    /// `ctr ARGS`, to be run or spawned.
    pub fn session(&self, args: &[&str]) -> Session {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.dir.join("containerd.sock")).args(args);
        Session::of(command, format!("ctr {}", args.join(" ")))
    }

    /// Runs ctr to its end; must exit with 0. The answer is what it printed, without the last line's end.
    ///
    /// # Errors
    /// When it exits with anything else.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(self.any(args)?.success()?.trim_end().to_owned())
    }

    /// Runs ctr to its end.
    ///
    /// # Errors
    /// When it cannot be started; any exit code is an answer.
    pub fn any(&self, args: &[&str]) -> Result<Finished> {
        self.session(args).finish()
    }

    /// `ctr run --runc-binary dewar-oci FLAGS IMAGE NAME COMMAND`, to be run or spawned.
    pub fn run(&self, flags: &[&str], name: &str, command: &[&str]) -> Session {
        let binary = runtime(self.host).display().to_string();
        let args = [&["run", "--runc-binary", &binary], flags, &[IMAGE, name], command].concat();
        self.session(&args)
    }

    fn start_once(&self) -> Result<()> {
        static DONE: Once = Once::new();
        DONE.run(|| self.start())
    }

    fn start(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let dir = |part: &str| self.dir.join(part).display().to_string();
        let config = dir("config.toml");
        std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let mut command = Command::new("containerd");
        command.args(["--config", &config, "--root", &dir("root"), "--state", &dir("run")]);
        command.args(["--address", &dir("containerd.sock")]).env("DEWAR_ENGINE", &self.host.engine);
        daemon::start(command, &self.dir, Path::new(&dir("log")))?;
        self.ok(&["images", "import", &busybox_archive(self.host)]).map(drop)
    }

    /// Nothing of a case may stay; what stays is removed all the same.
    fn clean_up(&self) -> Result<()> {
        let left = self.ok(&["containers", "ls", "-q"])?;
        for name in left.split_whitespace() {
            self.any(&["task", "rm", "-f", name])?;
            self.any(&["containers", "rm", name])?;
        }
        ensure!(left.is_empty(), "the case left containers: {left}");
        Ok(())
    }
}

/// A command on a terminal of 30 rows and 100 columns.
fn terminal(session: Session) -> Result<Terminal> {
    Terminal::start(session.command(), 30, 100)
}
