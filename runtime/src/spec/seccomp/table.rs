//! The default profile: what a container may call, in the groups in which the manual pages have it.
//!
//! Left out on purpose: what reaches the kernel as a whole (modules, clocks, reboot, swap, quotas, accounting, tracing of
//! the system), what makes namespaces or mounts, keyrings (not namespaced), io_uring (its operations pass seccomp by),
//! and vsock (it leads to the host). Some come back with the capability that guards them.

use oci_spec::runtime::{Arch, LinuxSeccompAction as Action, LinuxSeccompArgBuilder, LinuxSeccompOperator as Op};

use super::profile::{Filter, Profile, Rule};

const FILES: &str = "access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 \
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
    fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat \
    llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat \
    open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 \
    statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat \
    utime utimensat utimensat_time64 utimes vmsplice write writev";

const MEMORY: &str = "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease \
    remap_file_pages";

const PROCESSES: &str = "capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 \
    getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit \
    getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
    setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
    setrlimit setsid setuid setuid32 sysinfo tgkill times tkill ugetrlimit uname vfork wait4 waitid waitpid";

const SIGNALS_AND_TIME: &str = "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep pause rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo setitimer sigaltstack signalfd signalfd4 sigprocmask sigreturn time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64";

const WAITING: &str = "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
    io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 select";

const TALKING: &str = "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd \
    pipe pipe2 recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send \
    sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair";

const MACHINE: &str = "arch_prctl getrandom modify_ldt";

/// Guarded well enough by the kernel since the version named.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// What comes back with a capability.
const BY_CAPABILITY: [(&str, &str); 13] = [
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare listmount statmount",
    ),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
];
const PERFMON: (&str, &str) = ("CAP_PERFMON", "perf_event_open");

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const CLONE_NEW: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and the question for the current one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn allow(names: &str) -> Rule {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    Rule { names, action: Action::ScmpActAllow, ..Rule::default() }
}

/// Allows a call when its first argument compares so.
fn allow_when(names: &str, op: Op, value: u64, value_two: u64) -> Rule {
    let arg = LinuxSeccompArgBuilder::default().index(0usize).op(op).value(value).value_two(value_two).build();
    Rule { args: Some(vec![arg.expect("all its fields have defaults and none is validated")]), ..allow(names) }
}

fn with_capability(name: &str) -> Option<Filter> {
    Some(Filter { caps: Some(vec![name.to_owned()]), ..Filter::default() })
}

pub(super) fn profile() -> Profile {
    let mut syscalls: Vec<Rule> =
        [FILES, MEMORY, PROCESSES, SIGNALS_AND_TIME, WAITING, TALKING, MACHINE].map(allow).into_iter().collect();
    let since = Filter { min_kernel: Some("4.8".into()), ..Filter::default() };
    syscalls.push(Rule { includes: Some(since), ..allow(SINCE_4_8) });
    syscalls.push(allow_when("socket", Op::ScmpCmpNe, AF_VSOCK, 0));
    syscalls.extend(PERSONALITIES.map(|value| allow_when("personality", Op::ScmpCmpEq, value, 0)));
    for (capability, names) in BY_CAPABILITY.into_iter().chain([PERFMON]) {
        syscalls.push(Rule { includes: with_capability(capability), ..allow(names) });
    }
    let namespaces = allow_when("clone", Op::ScmpCmpMaskedEq, CLONE_NEW, 0);
    syscalls.push(Rule { excludes: with_capability("CAP_SYS_ADMIN"), ..namespaces });
    // A filter cannot see clone3's flags. ENOSYS, unlike EPERM, makes C libraries fall back to clone.
    syscalls.push(Rule {
        action: Action::ScmpActErrno,
        errno_ret: Some(ENOSYS),
        excludes: with_capability("CAP_SYS_ADMIN"),
        ..allow("clone3")
    });
    Profile {
        default_action: Action::ScmpActErrno,
        default_errno_ret: Some(EPERM),
        architectures: Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]),
        arch_map: None,
        flags: None,
        listener_path: None,
        syscalls,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp, LinuxSyscall};

    use super::super::default_profile;
    use super::*;

    fn profile_with(capabilities: &[Capability]) -> LinuxSeccomp {
        default_profile(&capabilities.iter().copied().collect::<Capabilities>())
    }

    fn rules_for<'a>(seccomp: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        seccomp.syscalls().iter().flatten().filter(|s| s.names().iter().any(|n| n == name)).collect()
    }

    fn freely_allowed(seccomp: &LinuxSeccomp, name: &str) -> bool {
        rules_for(seccomp, name).iter().any(|s| s.action() == Action::ScmpActAllow && s.args().is_none())
    }

    #[test]
    fn nothing_is_listed_twice_within_a_group_and_the_default_is_a_refusal() {
        for rule in profile().syscalls {
            let mut names = rule.names.clone();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rule.names.len(), "{:?}", rule.names);
        }
        let seccomp = profile_with(&[]);
        assert_eq!((seccomp.default_action(), seccomp.default_errno_ret()), (Action::ScmpActErrno, Some(1)));
    }

    #[test]
    fn an_ordinary_container_gets_what_programs_need_and_not_what_reaches_the_kernel() {
        let seccomp = profile_with(&[Capability::Chown, Capability::SysChroot]);
        for name in "read openat execve mmap futex rseq getrandom ptrace arch_prctl statx epoll_wait chroot".split(' ')
        {
            assert!(freely_allowed(&seccomp, name), "{name}");
        }
        let refused = "mount umount2 unshare setns bpf init_module reboot swapon keyctl add_key request_key kexec_load \
            open_by_handle_at io_uring_setup io_uring_enter userfaultfd perf_event_open settimeofday pivot_root acct \
            iopl quotactl vhangup move_pages nfsservctl sethostname syslog";
        for name in refused.split_ascii_whitespace() {
            assert!(rules_for(&seccomp, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn clone_makes_namespaces_only_with_sys_admin() {
        let plain = profile_with(&[]);
        let clone = rules_for(&plain, "clone");
        let args = clone[0].args().clone().expect("a condition");
        assert_eq!((clone.len(), args[0].value(), args[0].value_two()), (1, 0x7e02_0000, Some(0)));
        let clone3 = rules_for(&plain, "clone3");
        assert_eq!((clone3.len(), clone3[0].action(), clone3[0].errno_ret()), (1, Action::ScmpActErrno, Some(38)));
        let admin = profile_with(&[Capability::SysAdmin]);
        for name in ["clone", "clone3", "unshare", "mount", "setns"] {
            assert!(freely_allowed(&admin, name), "{name}");
            assert_eq!(rules_for(&admin, name).len(), 1, "{name}");
        }
    }

    #[test]
    fn sockets_but_for_vsock_and_harmless_personalities() {
        let seccomp = profile_with(&[]);
        let socket = rules_for(&seccomp, "socket");
        let args = socket[0].args().clone().expect("a condition");
        assert_eq!((socket.len(), args[0].op(), args[0].value()), (1, Op::ScmpCmpNe, 40));
        assert_eq!(rules_for(&seccomp, "personality").len(), 5);
        assert!(!freely_allowed(&seccomp, "personality"));
    }

    #[test]
    fn capabilities_bring_their_calls_back() {
        for (capability, name) in [
            (Capability::SysTime, "clock_settime"),
            (Capability::SysModule, "finit_module"),
            (Capability::DacReadSearch, "open_by_handle_at"),
            (Capability::Bpf, "bpf"),
            (Capability::Perfmon, "perf_event_open"),
            (Capability::Syslog, "syslog"),
            (Capability::SysNice, "mbind"),
        ] {
            assert!(freely_allowed(&profile_with(&[capability]), name), "{name}");
            assert!(!freely_allowed(&profile_with(&[]), name), "{name}");
        }
    }
}
