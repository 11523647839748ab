//! Names of system calls to numbers, for each way into the kernel.

use super::{i386, x86_64};

/// What x32 calls have set in their number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls whose number in x32 is not that of x86_64, sorted by name.
const X32_OWN: [(&str, u32); 36] = [
    ("execve", 520),
    ("execveat", 545),
    ("get_robust_list", 531),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("ioctl", 514),
    ("kexec_load", 528),
    ("move_pages", 533),
    ("mq_notify", 527),
    ("preadv", 534),
    ("preadv2", 546),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("ptrace", 521),
    ("pwritev", 535),
    ("pwritev2", 547),
    ("readv", 515),
    ("recvfrom", 517),
    ("recvmmsg", 537),
    ("recvmsg", 519),
    ("rt_sigaction", 512),
    ("rt_sigpending", 522),
    ("rt_sigqueueinfo", 524),
    ("rt_sigreturn", 513),
    ("rt_sigtimedwait", 523),
    ("rt_tgsigqueueinfo", 536),
    ("sendmmsg", 538),
    ("sendmsg", 518),
    ("set_robust_list", 530),
    ("setsockopt", 541),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("vmsplice", 532),
    ("waitid", 529),
    ("writev", 516),
];

/// The 32-bit calls that contain others; their first argument says which.
const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// linux/net.h and linux/ipc.h: the calls inside them, sorted by name.
const CONTAINED: [(&str, u32, u32); 32] = [
    ("accept", SOCKETCALL, 5),
    ("accept4", SOCKETCALL, 18),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15),
    ("listen", SOCKETCALL, 4),
    ("msgctl", IPC, 14),
    ("msgget", IPC, 13),
    ("msgrcv", IPC, 12),
    ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10),
    ("recvfrom", SOCKETCALL, 12),
    ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17),
    ("semctl", IPC, 3),
    ("semget", IPC, 2),
    ("semop", IPC, 1),
    ("semtimedop", IPC, 4),
    ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20),
    ("sendmsg", SOCKETCALL, 16),
    ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14),
    ("shmat", IPC, 21),
    ("shmctl", IPC, 24),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

/// Whether any way into the kernel has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    [x86_64, x32, i386].iter().any(|table| table(name).is_some()) || i386_container(name).is_some()
}

pub(super) fn x86_64(name: &str) -> Option<u32> {
    find(&x86_64::NUMBERS, name)
}

/// With [`X32_BIT`].
pub(super) fn x32(name: &str) -> Option<u32> {
    find(&X32_OWN, name).or_else(|| x86_64(name)).map(|number| number | X32_BIT)
}

pub(super) fn i386(name: &str) -> Option<u32> {
    find(&i386::NUMBERS, name)
}

/// The 32-bit call that contains this one, and the first argument that means it.
pub(super) fn i386_container(name: &str) -> Option<(u32, u32)> {
    let index = CONTAINED.binary_search_by_key(&name, |(name, _, _)| name).ok()?;
    CONTAINED.get(index).map(|(_, call, argument)| (*call, *argument))
}

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    let index = table.binary_search_by_key(&name, |(name, _)| name).ok()?;
    table.get(index).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_no_number_is_given_twice() {
        for table in [&x86_64::NUMBERS[..], &i386::NUMBERS, &X32_OWN] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
            let mut numbers: Vec<u32> = table.iter().map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            assert!(numbers.is_sorted_by(|a, b| a < b));
        }
        assert!(CONTAINED.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("fchmodat2", libc::SYS_fchmodat2),
            ("mseal", libc::SYS_mseal),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ] {
            assert_eq!(x86_64(name).map(i64::from), Some(number), "{name}");
        }
    }

    #[test]
    fn each_way_into_the_kernel_has_its_numbers() {
        assert_eq!((x86_64("ioctl"), i386("ioctl"), x32("ioctl")), (Some(16), Some(54), Some(X32_BIT | 514)));
        assert_eq!((x86_64("read"), i386("read"), x32("read")), (Some(0), Some(3), Some(X32_BIT)));
        assert_eq!((x86_64("stat64"), i386("stat64")), (None, Some(195)));
        assert_eq!(i386_container("socket"), Some((102, 1)));
        assert_eq!(i386_container("read"), None);
    }
}
