//! What is not on a list of allowed calls fails.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let known = "accept access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 execve exit \
        exit_group faccessat faccessat2 fchdir fchmod fchown fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid \
        getgroups getpgid getpid getppid getrandom gettid getuid ioctl kill lseek lstat mmap mprotect munmap newfstatat open openat \
        openat2 pipe pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn \
        sched_yield seccomp sendto set_robust_list set_tid_address setgid setgroups setresgid setresuid setuid sigaltstack \
        stat statfs statx sysinfo time umask uname vfork wait4 write writev recvfrom socket connect epoll_wait epoll_pwait fchownat \
        setsid setpgid getpgrp signalfd4 tgkill mincore madvise mremap sched_getaffinity clock_gettime nanosleep clock_nanosleep";
    let names: Vec<&str> = known.split_whitespace().collect();
    bundle.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    }));
    let out = bundle.sh("echo allowed; mkdir /made 2>/dev/null || echo refused; chmod 700 /tmp 2>/dev/null || echo refused")?;
    ensure!(out == "allowed\nrefused\nrefused\n", "{out:?}");
    Ok(())
}
