//! Two processes of one container share all namespaces; the agent (seen by the ids of the initial namespaces, which are
//! constants of the kernel) is in others.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

/// Inode numbers of the initial namespaces (kernel: include/linux/proc_ns.h).
const INITIAL: [(&str, u32); 4] =
    [("ipc", 0xEFFF_FFFF), ("uts", 0xEFFF_FFFE), ("pid", 0xEFFF_FFFC), ("cgroup", 0xEFFF_FFFB)];

pub fn run(host: &Host) -> Result<Outcome> {
    let script = "for n in mnt pid net ipc uts cgroup; do echo $n $(readlink /proc/self/ns/$n) $(readlink /proc/1/ns/$n); done";
    let out = host.sh(&[], script)?;
    ensure!(out.lines().count() == 6, "{out}");
    for line in out.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.len() == 3 && words[1] == words[2], "{line}");
        let initial = INITIAL.iter().find(|(name, _)| *name == words[0]);
        if let Some((name, inode)) = initial {
            ensure!(words[1] != format!("{name}:[{inode}]"), "{line} is the guest's initial namespace");
        }
    }
    Ok(Outcome::Passed)
}
