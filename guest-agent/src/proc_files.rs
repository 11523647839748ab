//! Files of a container's `/proc` as somebody in it reads them: for engines, which look for a container's processes there.
//!
//! The agent's procfs numbers processes as the guest does. Where such a number stands the container's is put, which `status`
//! tells as the last of those in each namespace.

use std::collections::BTreeMap;

use dewar_protocol::{ProcFiles, ProcView};
use rustix::time::{ClockId, clock_gettime};

use crate::procs::{MAX_PROCESSES, read};

/// Most bytes of all files; the reply must fit into a frame.
const MAX_BYTES: usize = 2 << 20;

/// What is to be seen of these processes; those that ended meanwhile are left out.
pub fn view(pids: &[u32]) -> ProcView {
    let statuses = pids.iter().take(MAX_PROCESSES).filter_map(|&pid| Some((pid, read(pid, "status")?)));
    let statuses: BTreeMap<u32, Vec<u8>> = statuses.collect();
    let inner: BTreeMap<u32, u32> =
        statuses.iter().filter_map(|(pid, text)| Some((*pid, last(text, b"NSpid:")?))).collect();
    let mut bytes = 0_usize;
    let mut processes = Vec::new();
    for (&pid, status) in &statuses {
        let Some(files) = files(pid, status, &inner) else { continue };
        bytes = bytes.saturating_add(files.stat.len() + files.status.len() + files.cmdline.len());
        if bytes > MAX_BYTES {
            break;
        }
        processes.push(files);
    }
    ProcView { boot_seconds: boot_seconds(), processes }
}

fn files(pid: u32, status: &[u8], inner: &BTreeMap<u32, u32>) -> Option<ProcFiles> {
    // A parent outside of the container is 0, as procfs has it.
    let parent = last(status, b"PPid:").and_then(|ppid| inner.get(&ppid).copied()).unwrap_or(0);
    let own = *inner.get(&pid)?;
    let numbers = [own, parent, last(status, b"NSpgid:")?, last(status, b"NSsid:")?];
    Some(ProcFiles {
        pid: own,
        stat: renumber_stat(&read(pid, "stat")?, numbers)?,
        status: renumber_status(status, own, parent),
        cmdline: read(pid, "cmdline")?,
    })
}

/// The last number of a line of `status`.
fn last(status: &[u8], name: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// proc(5): the number before the name, and the second, third and fourth field behind it.
fn renumber_stat(stat: &[u8], [pid, ppid, group, session]: [u32; 4]) -> Option<Vec<u8>> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let name = stat.get(open..=close).filter(|name| name.len() >= 2)?;
    let rest = std::str::from_utf8(stat.get(close.checked_add(1)?..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let rest: Vec<&str> = fields.skip(3).collect();
    let mut text = format!("{pid} ").into_bytes();
    text.extend_from_slice(name);
    text.extend_from_slice(format!(" {state} {ppid} {group} {session} {}\n", rest.join(" ")).as_bytes());
    Some(text)
}

fn renumber_status(status: &[u8], pid: u32, ppid: u32) -> Vec<u8> {
    let mut text = Vec::with_capacity(status.len());
    for line in status.split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let number = match name {
            b"Pid" | b"Tgid" => Some(pid),
            b"PPid" => Some(ppid),
            // Who traces is not told.
            b"TracerPid" => Some(0),
            b"NSpid" | b"NStgid" | b"NSpgid" | b"NSsid" => last(line, &[name, b":"].concat()),
            _ => None,
        };
        match number {
            Some(number) => {
                text.extend_from_slice(name);
                text.extend_from_slice(format!(":\t{number}\n").as_bytes());
            }
            None => text.extend_from_slice(line),
        }
    }
    text
}

/// When the guest started, which the start times of processes count from.
fn boot_seconds() -> u64 {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    u64::try_from(now.saturating_sub(clock_gettime(ClockId::Boottime).tv_sec)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] =
        b"Name:\tsh\nState:\tS (sleeping)\nTgid:\t42\nPid:\t42\nPPid:\t40\nTracerPid:\t9\nUid:\t0\t0\t0\t0\n\
        NStgid:\t42\t3\nNSpid:\t42\t3\nNSpgid:\t42\t3\nNSsid:\t40\t1\nSeccomp:\t2\n";

    #[test]
    fn numbers_are_the_container_s() {
        let text = renumber_status(STATUS, 3, 1);
        let expected = "Name:\tsh\nState:\tS (sleeping)\nTgid:\t3\nPid:\t3\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n\
                        NStgid:\t3\nNSpid:\t3\nNSpgid:\t3\nNSsid:\t1\nSeccomp:\t2\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
        let stat = renumber_stat(b"42 (a) (b) S 40 42 40 34816 42 4194304 100\n", [3, 1, 3, 1]);
        assert_eq!(stat.as_deref(), Some(&b"3 (a) (b) S 1 3 1 34816 42 4194304 100\n"[..]));
    }

    #[test]
    fn what_is_cut_or_no_number_is_no_number() {
        assert_eq!(last(STATUS, b"NSsid:"), Some(1));
        for status in [&b""[..], b"NSsid:", b"NSsid:\t\n", b"NSsid:\tx\n", b"NSsid:\t99999999999\n", b"\xff\xff"] {
            assert_eq!(last(status, b"NSsid:"), None);
        }
        for stat in [&b""[..], b"1 (a", b")(", b"1 (a)"] {
            assert_eq!(renumber_stat(stat, [1, 0, 1, 1]), None);
        }
    }

    #[test]
    fn this_process_is_seen_and_one_that_is_not_there_is_not() {
        let me = std::process::id();
        let view = view(&[me, u32::MAX]);
        assert_eq!(view.processes.len(), 1);
        assert!(view.boot_seconds > 0 && !view.processes[0].cmdline.is_empty());
    }
}
