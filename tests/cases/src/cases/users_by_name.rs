//! `-u` takes names and numbers, looked up in the image's own files.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    for (user, expected) in [("nobody", "65534:65534"), ("1234", "1234:0"), ("1234:5678", "1234:5678"), ("0", "0:0")] {
        let out = host.sh(&["-u", user], "echo $(id -u):$(id -g)")?;
        ensure!(out.trim() == expected, "-u {user} gave {out}");
    }
    host.run(&["-u", "nobody-knows"], &["true"])?.exits(125)?.complains("nobody-knows")?;
    let out = host.sh(&["-u", "nobody"], "touch /etc/x 2>&1; echo $?")?;
    ensure!(out.trim_end().ends_with('1'), "an ordinary user can write to /etc: {out}");
    Ok(Outcome::Passed)
}
