//! `--env-file` is read, `--cidfile` is written and never overwritten.

use std::fs;

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("env"), "# a comment\nA=from file\nB=from file\n\nPASSED\nABSENT\nEMPTY=\n")?;
    let script = "env | grep -E '^(A|B|PASSED|ABSENT|EMPTY)=' | sort";
    let flags = ["run", "--rm", "--env-file", &path("env"), "-e", "B=from flag", "busybox", "sh", "-c", script];
    let out = host.dewar(&flags).env("PASSED", "on").finish()?.success()?;
    ensure!(out == "A=from file\nB=from flag\nEMPTY=\nPASSED=on\n", "{out}");
    host.run(&["--env-file", &path("missing")], &["true"])?.exits(125)?.complains("missing")?;
    fs::write(path("bad"), "white space=x\n")?;
    host.run(&["--env-file", &path("bad")], &["true"])?.exits(125)?.complains("white space")?;

    let name = host.name();
    let cidfile = path("id");
    let create = ["create", "--name", &name, "--cidfile", &cidfile, "busybox", "true"];
    let id = host.dewar(&create).finish()?.success()?;
    ensure!(fs::read_to_string(&cidfile)? == id.trim(), "{id}");
    host.run(&["--name", &host.name(), "--cidfile", &cidfile], &["true"])?.exits(125)?.complains("container id")?;
    ensure!(fs::read_to_string(&cidfile)? == id.trim(), "overwritten");
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
