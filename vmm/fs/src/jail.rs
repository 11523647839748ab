//! What the process gives up before it reads the guest's first byte. Whoever takes it over by a bug finds the descriptors of
//! the entries, and not much else.
//!
//! As root: namespaces of its own for mounts (with nothing in them), network, IPC and host name; of the capabilities only
//! what ownership of files needs; none to be had again. Without privileges there are no capabilities to drop and no mounts to
//! leave, and files belong to the user whose process this is. Either way no new privileges, and a list of system calls
//! beyond which the kernel kills the process: no process can be started, no memory made executable, no socket opened.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, open_tree, unmount,
};
use rustix::process::{Resource, Rlimit, chdir, getrlimit, pivot_root, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags, capabilities, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, unshare_unsafe,
};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// What acting for any user of the guest needs: owners, modes, file capabilities, device nodes. No `trusted.*` attributes,
/// which would need the right to everything.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP);

/// System calls of threads that serve, whatever their arguments.
const ALLOWED: [i64; 58] = [
    libc::SYS_brk,
    libc::SYS_capset,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fallocate,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getrandom,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_openat,
    // A thread that finds the device gone while another one ends the process waits for that.
    libc::SYS_pause,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setxattr,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_gettid,
];

/// System calls that may not make memory executable, with the argument that would say so.
const WITHOUT_EXECUTION: [(i64, u8); 2] = [(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2)];

/// Lets the process open as many files as it may, and says how many.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // The hard limit may be reached by anybody.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let reached = if raised.is_ok() { limit.maximum } else { limit.current };
    reached.unwrap_or(1 << 20)
}

/// Gives up everything but system calls, in a process with one thread, and returns `/proc/self/fd`.
///
/// # Errors
/// When the kernel refuses.
pub fn enter() -> anyhow::Result<OwnedFd> {
    let held = capabilities(None).context("Could not read the process's capabilities")?.permitted;
    let descriptors = if held.contains(CapabilitySet::SYS_ADMIN) {
        leave_mounts()?
    } else {
        open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context("Could not open /proc/self/fd")?
    };
    drop_capabilities(held)?;
    set_no_new_privs(true).context("Could not give up new privileges")?;
    Ok(descriptors)
}

/// Moves to namespaces with nothing in them.
fn leave_mounts() -> anyhow::Result<OwnedFd> {
    let namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: no descriptors are unshared, and there is one thread.
    unsafe { unshare_unsafe(namespaces) }.context("Could not make namespaces")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("Could not make mounts private")?;
    // A mount of this directory alone: its parent is not above it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let descriptors = open_tree(CWD, "/proc/self/fd", flags).context("Could not clone the mount of /proc/self/fd")?;
    let empty = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Any directory will do, and this one exists.
    mount("none", "/proc", "tmpfs", empty, c"size=4k,mode=0555").context("Could not mount an empty directory")?;
    chdir("/proc").and_then(|()| pivot_root(".", ".")).context("Could not change the root")?;
    unmount(".", UnmountFlags::DETACH).and_then(|()| chdir("/")).context("Could not leave the old root")?;
    Ok(descriptors)
}

fn drop_capabilities(held: CapabilitySet) -> anyhow::Result<()> {
    if held.contains(CapabilitySet::SETGID) {
        set_thread_groups(&[]).context("Could not give up groups")?;
    }
    if held.contains(CapabilitySet::SETPCAP) {
        // Acting as another user for a moment does not change capabilities; being root gives none.
        let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        set_capabilities_secure_bits(bits).context("Could not fix the process's capabilities")?;
    }
    let mut kept = KEPT & held;
    if !held.contains(CapabilitySet::SETPCAP) {
        // Becoming another user would take the rest away half-way through.
        kept.remove(CapabilitySet::SETUID | CapabilitySet::SETGID);
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("Could not drop capabilities")
}

/// Leaves all threads of the process only the system calls that serving needs.
///
/// # Errors
/// When the kernel refuses.
pub fn restrict_system_calls() -> anyhow::Result<()> {
    let program: seccompiler::BpfProgram = filter()?.try_into().context("Could not build the system call filter")?;
    seccompiler::apply_filter_all_threads(&program).context("Could not set the system call filter")
}

fn filter() -> anyhow::Result<SeccompFilter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    for (call, argument) in WITHOUT_EXECUTION {
        let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
        let operator = SeccompCmpOp::MaskedEq(executable);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into().context("There is no filter for this processor")?;
    Ok(SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?)
}
