//! A look at the host's processes.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Result, ensure};

/// Ids of the processes whose command line contains a text.
pub fn processes_mentioning(text: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// Waits for processes to end, by pidfd; at most a minute for all together.
///
/// # Errors
/// When one is still there.
pub fn wait_until_gone(pids: &[i32]) -> Result<()> {
    for &pid in pids {
        // SAFETY: pidfd_open takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Ok(fd) = i32::try_from(fd) else { continue };
        if fd < 0 {
            continue;
        }
        // SAFETY: a fresh descriptor that nobody else has.
        let _fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 60_000) };
        ensure!(ready == 1, "process {pid} is still there after a minute");
    }
    Ok(())
}
