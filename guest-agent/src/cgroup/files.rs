//! Reading, writing, watching and walking the files of a cgroup directory, always relative to its descriptor.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::{CgroupError, stats};

/// Most that is read of one file; io.stat and cgroup.procs have no bound of their own.
const MAX_FILE: usize = 1 << 20;

pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .map_err(|source| CgroupError::Open { name: name.to_owned(), source })
}

/// Writes a value in one write(2), as the kernel wants it.
pub(super) fn write(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), CgroupError> {
    let failed = |source| match source {
        Errno::NOENT => CgroupError::Missing { file: file.to_owned(), value: value.to_owned() },
        source => CgroupError::Write { file: file.to_owned(), value: value.to_owned(), source },
    };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(dir, file, flags, Mode::empty()).map_err(failed)?;
    // A device that an io.* file names and that does not exist is ENODEV; ENOENT is only ever the file's.
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map_err(|source| CgroupError::Write {
        file: file.to_owned(),
        value: value.to_owned(),
        source,
    })?;
    Ok(())
}

pub(super) fn read(dir: BorrowedFd<'_>, file: &str) -> Result<String, CgroupError> {
    try_read(dir, file).map_err(|source| CgroupError::Read { file: file.to_owned(), source })
}

/// `None` when the kernel has no such file, or the group is of a kind for which it says nothing.
pub(super) fn read_optional(dir: BorrowedFd<'_>, file: &str) -> Result<Option<String>, CgroupError> {
    match try_read(dir, file) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
        Err(source) => Err(CgroupError::Read { file: file.to_owned(), source }),
    }
}

fn open(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

fn try_read(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<String> {
    read_from_start(&open(dir, file)?)
}

fn read_from_start(fd: &OwnedFd) -> rustix::io::Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < MAX_FILE {
        match rustix::io::pread(fd, &mut buffer, text.len() as u64) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Waits for a file that notifies of changes to satisfy `reached`; false when `patience` ends first.
pub(super) fn wait_until(
    dir: BorrowedFd<'_>,
    file: &str,
    patience: Duration,
    reached: impl Fn(&str) -> bool,
) -> Result<bool, CgroupError> {
    let failed = |source| CgroupError::Read { file: file.to_owned(), source };
    let fd = open(dir, file).map_err(failed)?;
    let start = Instant::now();
    // Each read also arms the notification of the next change: nothing between a read and its poll(2) is missed.
    while !reached(&read_from_start(&fd).map_err(failed)?) {
        let left = patience.saturating_sub(start.elapsed());
        let timeout = Timespec::try_from(left).map_err(|_| failed(Errno::OVERFLOW))?;
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::PRI)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(true)
}

/// Adds the processes of a group and of those below it.
pub(super) fn collect_pids(dir: BorrowedFd<'_>, depth: u32, pids: &mut Vec<u32>) -> Result<(), CgroupError> {
    // A threaded group does not list processes: they are in the list of the domain above it.
    pids.extend(stats::pids(read_optional(dir, "cgroup.procs")?.as_deref().unwrap_or_default()));
    for_each_child(dir, depth, |_, child, depth| collect_pids(child, depth, pids))
}

/// Removes all groups below `dir`; they are empty.
pub(super) fn remove_below(dir: BorrowedFd<'_>, depth: u32) -> Result<(), CgroupError> {
    for_each_child(dir, depth, |name, child, depth| {
        remove_below(child, depth)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
            .map_err(|source| CgroupError::Remove { name: name.to_owned(), source })
    })
}

fn for_each_child(
    dir: BorrowedFd<'_>,
    depth: u32,
    mut visit: impl FnMut(&str, BorrowedFd<'_>, u32) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    use std::os::fd::AsFd;
    let Some(below) = depth.checked_sub(1) else { return Ok(()) };
    for name in children(dir).map_err(|source| CgroupError::Read { file: ".".to_owned(), source })? {
        match open_dir(dir, &name) {
            Ok(child) => visit(&name, child.as_fd(), below)?,
            // Removed by the container meanwhile.
            Err(CgroupError::Open { source: Errno::NOENT, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn children(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn values_go_through_the_directory_descriptor() {
        let dir = tempfile::tempdir().expect("makes a directory");
        std::fs::write(dir.path().join("memory.max"), "").expect("writes");
        let fd = File::open(dir.path()).expect("opens");
        write(fd.as_fd(), "memory.max", "123").expect("writes");
        assert_eq!(read(fd.as_fd(), "memory.max").expect("reads"), "123");
        assert_eq!(read_optional(fd.as_fd(), "memory.low").expect("reads"), None);
    }

    #[test]
    fn a_refusal_names_file_and_value() {
        let dir = tempfile::tempdir().expect("makes a directory");
        std::fs::create_dir(dir.path().join("cpu.max")).expect("makes a directory");
        let fd = File::open(dir.path()).expect("opens");
        let error = write(fd.as_fd(), "memory.max", "1").expect_err("fails");
        assert_eq!(error.to_string(), "This guest kernel has no memory.max, which was to be set to \"1\"");
        let error = write(fd.as_fd(), "cpu.max", "5").expect_err("fails");
        assert_eq!(error.to_string(), "The kernel refuses \"5\" for cpu.max");
        assert!(matches!(error, CgroupError::Write { source: Errno::ISDIR, .. }));
    }

    #[test]
    fn groups_below_are_walked_and_removed() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let group = dir.path().join("group");
        std::fs::create_dir_all(group.join("a/b")).expect("makes directories");
        std::fs::create_dir_all(group.join("c")).expect("makes directories");
        let fd = File::open(&group).expect("opens");
        let mut seen = Vec::new();
        for_each_child(fd.as_fd(), 4, |name, child, _| {
            seen.push(name.to_owned());
            for_each_child(child, 3, |name, _, _| {
                seen.push(name.to_owned());
                Ok(())
            })
        })
        .expect("walks");
        seen.sort();
        assert_eq!(seen, ["a", "b", "c"]);
        remove_below(fd.as_fd(), 4).expect("removes");
        assert_eq!(children(fd.as_fd()).expect("reads"), Vec::<String>::new());
    }

    #[test]
    fn processes_of_all_groups_are_collected() {
        let dir = tempfile::tempdir().expect("makes a directory");
        std::fs::create_dir(dir.path().join("sub")).expect("makes a directory");
        std::fs::write(dir.path().join("cgroup.procs"), "5\n7\n").expect("writes");
        std::fs::write(dir.path().join("sub/cgroup.procs"), "9\n").expect("writes");
        let fd = File::open(dir.path()).expect("opens");
        let mut pids = Vec::new();
        collect_pids(fd.as_fd(), 4, &mut pids).expect("reads");
        assert_eq!(pids, [5, 7, 9]);
    }

    #[test]
    fn a_condition_that_holds_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("makes a directory");
        std::fs::write(dir.path().join("cgroup.events"), "populated 0\nfrozen 1\n").expect("writes");
        let fd = File::open(dir.path()).expect("opens");
        let frozen = |text: &str| stats::keyed(text, "frozen") == 1;
        assert!(wait_until(fd.as_fd(), "cgroup.events", Duration::ZERO, frozen).expect("reads"));
    }
}
