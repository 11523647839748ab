//! The server as a guest finds it, in this process and as the program in its jail.

mod client;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use client::{Client, ROOT, body, u64_at};
use dewar_fs::{Limits, abi};

/// Whether files can be given to others.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every kind of request that a guest's life has, on an entry that can be written.
fn whole_life(client: &mut Client, dir: &Path) {
    let top = client.share("top", dir, false);
    let (file, handle) = client.create(top, "file", 0o666).unwrap();
    assert_eq!((file.mode, file.size), (libc::S_IFREG | 0o644, 0));
    assert_eq!(file.inode, fs::metadata(dir.join("file")).unwrap().ino());
    let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).take(250_000).collect();
    client.write(file.node, handle, 3, &data).unwrap();
    assert_eq!(client.read(file.node, handle, 3, 250_000).unwrap(), data);
    assert_eq!(client.read(file.node, handle, 250_003, 100).unwrap(), []);
    assert_eq!(fs::read(dir.join("file")).unwrap()[3..], data);
    client.call(abi::FSYNC, file.node, body().u64(handle).u32(1).u32(0)).unwrap();
    client.call(abi::FLUSH, file.node, body().u64(handle).u64(0).u64(0)).unwrap();
    client.call(abi::FALLOCATE, file.node, body().u64(handle).u64(300_000).u64(10).u32(0).u32(0)).unwrap();
    let hole = client.call(abi::LSEEK, file.node, body().u64(handle).u64(0).u32(4).u32(0));
    assert!(u64_at(&hole.unwrap(), 0) > 250_000);
    let (copy, copy_handle) = client.create(top, "copy", 0o600).unwrap();
    let range = body().u64(handle).u64(3).u64(copy.node).u64(copy_handle).u64(0).u64(1000).u64(0);
    client.call(abi::COPY_FILE_RANGE, file.node, range).unwrap();
    assert_eq!(fs::read(dir.join("copy")).unwrap(), data[..1000]);
    client.release(file.node, handle);
    client.release(copy.node, copy_handle);

    let sub = client.mkdir(top, "sub").unwrap();
    client.call(abi::SYMLINK, top, body().text("link").text("anything/at all")).unwrap();
    let link = client.lookup(top, "link").unwrap();
    assert_eq!(client.call(abi::READLINK, link.node, body()).unwrap(), b"anything/at all");
    client.call(abi::MKNOD, top, body().u32(libc::S_IFIFO | 0o600).u32(0).u32(0).u32(0).text("fifo")).unwrap();
    client.call(abi::LINK, sub.node, body().u64(file.node).text("second")).unwrap();
    assert_eq!(client.getattr(file.node).unwrap().links, 2);
    client.rename((sub.node, "second"), (top, "third"), 0).unwrap();
    assert_eq!(client.rename((top, "third"), (top, "copy"), libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    client.call(abi::UNLINK, top, body().text("third")).unwrap();
    client.call(abi::RMDIR, top, body().text("sub")).unwrap();
    assert_eq!(client.lookup(top, "sub").unwrap_err(), libc::ENOENT);

    let valid = abi::setattr::MODE | abi::setattr::SIZE | abi::setattr::ATIME | abi::setattr::MTIME;
    client.setattr(file.node, valid, 10, 0o4711, (0, 0)).unwrap();
    let status = fs::metadata(dir.join("file")).unwrap();
    assert_eq!((status.len(), status.mode() & 0o7777, status.mtime(), status.atime_nsec()), (10, 0o4711, 6, 7));
    client.setxattr(file.node, "user.a", b"value").unwrap();
    assert_eq!(client.getxattr(file.node, "user.a", 100).unwrap(), b"value");
    assert_eq!(client.getxattr(file.node, "user.a", 0).unwrap()[..4], [5, 0, 0, 0]);
    assert_eq!(client.getxattr(file.node, "user.a", 2), Err(libc::ERANGE));
    let listed = client.call(abi::LISTXATTR, file.node, body().u32(100).u32(0)).unwrap();
    assert_eq!(listed, b"user.a\0");
    client.call(abi::REMOVEXATTR, file.node, body().text("user.a")).unwrap();
    assert_eq!(client.getxattr(file.node, "user.a", 100), Err(libc::ENODATA));
    assert_eq!(client.call(abi::STATFS, file.node, body()).unwrap().len(), 80);
    client.call(abi::SYNCFS, ROOT, body().u64(0)).unwrap();
    let flags = libc::O_RDWR.unsigned_abs();
    let unnamed = client.call(abi::TMPFILE, top, body().u32(flags).u32(0o600).u32(0).u32(0).text("#1"));
    client.call(abi::LINK, top, body().u64(u64_at(&unnamed.unwrap(), 0)).text("named")).unwrap();
    for plus in [false, true] {
        let names: HashSet<_> = client.list(top, 4096, plus).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["file", "copy", "link", "fifo", "named"].map(String::from).into());
    }
    // The guest's kernel keeps locks by itself.
    assert_eq!(client.call(32, file.node, body().bytes(&[0; 48])), Err(libc::ENOSYS));
}

#[test]
fn a_guest_s_whole_life() {
    let dir = tempfile::tempdir().unwrap();
    whole_life(&mut Client::new(), dir.path());
}

#[test]
fn the_program_does_the_same_in_its_jail_and_ends_with_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::of_program();
    whole_life(&mut client, dir.path());
    if is_root() {
        client.uid = 1234;
        client.gid = 77;
        let top = client.lookup(ROOT, "top").unwrap().node;
        let (file, _) = client.create(top, "theirs", 0o4755).unwrap();
        assert_eq!((file.uid, file.gid, file.mode & 0o7777), (1234, 77, 0o4755));
        // The right to change what belongs to others is not lost by that.
        client.uid = 0;
        client.setattr(file.node, abi::setattr::UID | abi::setattr::GID, 0, 0, (5, 6)).unwrap();
        assert_eq!(fs::metadata(dir.path().join("theirs")).unwrap().uid(), 5);
        let kill = abi::setattr::SIZE | abi::setattr::KILL_SUIDGID;
        fs::set_permissions(dir.path().join("theirs"), fs::Permissions::from_mode(0o6755)).unwrap();
        client.setattr(file.node, kill, 0, 0, (0, 0)).unwrap();
        assert_eq!(client.getattr(file.node).unwrap().mode & 0o7777, 0o755);
        client.call(abi::MKNOD, top, body().u32(libc::S_IFCHR | 0o600).u32(0x103).u32(0).u32(0).text("null")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("null")).unwrap().rdev(), 0x103);
    }
    client.remove("top");
    let ended = client.hang_up().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn files_belong_to_who_asked_for_them() {
    if !is_root() {
        eprintln!("skipped: only root can give files to others");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), false);
    client.setattr(top, abi::setattr::MODE | abi::setattr::GID, 0, 0o2777, (0, 88)).unwrap();
    (client.uid, client.gid) = (1234, 77);
    // Unlike the program, this process loses its rights with its user number: the directory is open to all.
    let sub = client.mkdir(top, "sub").unwrap();
    assert_eq!((sub.uid, sub.gid, sub.mode & 0o7777), (1234, 88, 0o2755));
    client.call(abi::SYMLINK, top, body().text("link").text("x")).unwrap();
    let link = client.lookup(top, "link").unwrap();
    assert_eq!((link.uid, link.gid), (1234, 88));
    (client.uid, client.gid) = (u32::MAX, 0);
    assert_eq!(client.mkdir(top, "nobody's").unwrap_err(), libc::EPERM);
}

#[test]
fn names_lead_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(dir.path().join("secret"), "s").unwrap();
    symlink("../secret", shared.join("link")).unwrap();
    symlink("..", shared.join("up")).unwrap();
    let mut client = Client::new();
    let top = client.share("top", &shared, false);
    for name in ["..", ".", "", "/", "../secret", "up/secret", "/etc/passwd", "link/"] {
        assert_eq!(client.lookup(top, name).unwrap_err(), libc::EINVAL, "{name}");
        assert_eq!(client.mkdir(top, name).unwrap_err(), libc::EINVAL, "{name}");
        assert_eq!(client.create(top, name, 0o600).unwrap_err(), libc::EINVAL, "{name}");
        assert_eq!(client.rename((top, "link"), (top, name), 0), Err(libc::EINVAL), "{name}");
        assert_eq!(client.call(abi::UNLINK, top, body().text(name)), Err(libc::EINVAL), "{name}");
    }
    // A symbolic link is itself, whatever is done to it.
    let link = client.lookup(top, "link").unwrap();
    assert_eq!(link.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(client.open(link.node, libc::O_RDONLY), Err(libc::ENXIO));
    assert_eq!(client.setattr(link.node, abi::setattr::SIZE, 0, 0, (0, 0)), Err(libc::ENXIO));
    assert_eq!(client.create(top, "link", 0o600).unwrap_err(), libc::ENXIO);
    let up = client.lookup(top, "up").unwrap();
    assert_eq!(client.lookup(up.node, "secret").unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.mkdir(up.node, "x").unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.call(abi::OPENDIR, up.node, body().u64(0)), Err(libc::ENOTDIR));
    client.setattr(link.node, abi::setattr::ATIME | abi::setattr::MTIME, 0, 0, (0, 0)).unwrap();
    assert_ne!(fs::metadata(dir.path().join("secret")).unwrap().mtime(), 6);
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"s");
}

#[test]
fn a_directory_that_is_moved_away_is_still_the_same_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir_all(shared.join("a/b")).unwrap();
    let mut client = Client::new();
    let top = client.share("top", &shared, false);
    let a = client.lookup(top, "a").unwrap().node;
    let b = client.lookup(a, "b").unwrap().node;
    fs::rename(shared.join("a"), dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/b/file"), "x").unwrap();
    // What the guest had is as it was; what lies beside it now cannot be named.
    assert!(client.lookup(b, "file").is_ok());
    assert_eq!(client.lookup(a, "..").unwrap_err(), libc::EINVAL);
    assert_eq!(client.lookup(top, "a").unwrap_err(), libc::ENOENT);
    // Another thing by the same name is not what the guest has.
    symlink(dir.path(), shared.join("a")).unwrap();
    assert_eq!(client.lookup(top, "a").unwrap().mode & libc::S_IFMT, libc::S_IFLNK);
}

#[test]
fn a_name_that_changes_all_the_time_never_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, outside) = (dir.path().join("shared"), dir.path().join("outside"));
    fs::create_dir_all(shared.join("a")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    symlink(&outside, shared.join("b")).unwrap();
    let mut client = Client::new();
    let top = client.share("top", &shared, false);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (a, b) = (shared.join("a"), shared.join("b"));
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, exchange).unwrap();
            }
        });
        let mut kinds = HashSet::new();
        let mut wrong = None;
        // Until both have been seen, and for a while after that.
        for round in 0.. {
            let found = client.lookup(top, "a").unwrap();
            kinds.insert(found.mode & libc::S_IFMT);
            let inside = client.lookup(found.node, "secret").err();
            wrong = inside
                .filter(|error| !matches!(*error, libc::ENOENT | libc::ENOTDIR))
                .or(inside.is_none().then_some(0));
            match client.create(found.node, "made", 0o600) {
                Ok((file, handle)) => client.release(file.node, handle),
                Err(libc::ENOTDIR) => {}
                Err(other) => wrong = Some(other),
            }
            if wrong.is_some() || round > 2000 && kinds.len() == 2 {
                break;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "old").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let writable = tempfile::tempdir().unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), true);
    let other = client.share("other", writable.path(), false);
    let file = client.lookup(top, "file").unwrap().node;
    let rofs = |answer: Result<Vec<u8>, i32>| assert_eq!(answer, Err(libc::EROFS));
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC, libc::O_WRONLY | libc::O_APPEND] {
        assert_eq!(client.open(file, flags), Err(libc::EROFS));
    }
    assert_eq!(client.open(file, libc::O_ACCMODE), Err(libc::EINVAL));
    assert_eq!(client.create(top, "new", 0o600).unwrap_err(), libc::EROFS);
    assert_eq!(client.mkdir(top, "new").unwrap_err(), libc::EROFS);
    for valid in [abi::setattr::MODE, abi::setattr::SIZE, abi::setattr::UID, abi::setattr::MTIME_NOW, 0] {
        rofs(client.setattr(file, valid, 0, 0, (0, 0)));
    }
    rofs(client.setxattr(file, "user.a", b"x"));
    rofs(client.call(abi::REMOVEXATTR, file, body().text("user.a")));
    rofs(client.call(abi::UNLINK, top, body().text("file")));
    rofs(client.call(abi::RMDIR, top, body().text("sub")));
    rofs(client.rename((top, "file"), (top, "file2"), 0));
    rofs(client.rename((top, "file"), (other, "file"), 0));
    rofs(client.rename((other, "x"), (top, "file"), 0));
    rofs(client.call(abi::SYMLINK, top, body().text("l").text("x")));
    rofs(client.call(abi::MKNOD, top, body().u32(libc::S_IFREG).u64(0).u32(0).text("n")));
    rofs(client.call(abi::TMPFILE, top, body().u32(2).u32(0o600).u64(0).text("")));
    rofs(client.call(abi::LINK, top, body().u64(file).text("second")));
    // Neither does it get a name where it could be written.
    assert_eq!(client.call(abi::LINK, other, body().u64(file).text("second")), Err(libc::EXDEV));
    // A handle for reading is none for writing.
    let handle = client.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, handle, 0, 10).unwrap(), b"old");
    assert_eq!(client.write(file, handle, 0, b"new"), Err(libc::EBADF));
    let fallocate = body().u64(handle).u64(0).u64(10).u64(0);
    assert_eq!(client.call(abi::FALLOCATE, file, fallocate), Err(libc::EBADF));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
    assert_eq!(client.rename((ROOT, "top"), (ROOT, "x"), 0), Err(libc::EROFS));
    assert_eq!(client.mkdir(ROOT, "x").unwrap_err(), libc::EROFS);
}

#[test]
fn what_is_sealed_is_written_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), false);
    let (file, handle) = client.create(top, "file", 0o600).unwrap();
    client.write(file.node, handle, 0, b"old").unwrap();
    client.seal("top");
    assert_eq!(client.write(file.node, handle, 0, b"new"), Err(libc::EBADF));
    assert_eq!(client.open(file.node, libc::O_RDWR), Err(libc::EROFS));
    assert_eq!(client.mkdir(top, "new").unwrap_err(), libc::EROFS);
    let handle = client.open(file.node, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file.node, handle, 0, 10).unwrap(), b"old");
}

#[test]
fn the_same_directory_is_read_only_in_one_entry_and_not_in_another() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let mut client = Client::new();
    let (fixed, free) = (client.share("fixed", dir.path(), true), client.share("free", dir.path(), false));
    let (one, two) = (client.lookup(fixed, "file").unwrap(), client.lookup(free, "file").unwrap());
    assert_ne!(one.node, two.node);
    assert_eq!(client.open(one.node, libc::O_WRONLY), Err(libc::EROFS));
    assert!(client.open(two.node, libc::O_WRONLY).is_ok());
    assert_eq!(client.rename((free, "file"), (fixed, "file"), 0), Err(libc::EROFS));
}

#[test]
fn a_single_file_is_all_that_is_seen_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), "1").unwrap();
    fs::write(dir.path().join("two"), "2").unwrap();
    let mut client = Client::new();
    let file = client.share("one", &dir.path().join("one"), false);
    let handle = client.open(file, libc::O_RDWR).unwrap();
    client.write(file, handle, 0, b"new").unwrap();
    assert_eq!(fs::read(dir.path().join("one")).unwrap(), b"new");
    assert_eq!(client.lookup(file, "two").unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.lookup(ROOT, "two").unwrap_err(), libc::ENOENT);
    let names: Vec<_> = client.list(ROOT, 4096, true).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["one"]);
}

#[test]
fn devices_and_pipes_are_not_opened_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), false);
    client.call(abi::MKNOD, top, body().u32(libc::S_IFIFO | 0o600).u64(0).u32(0).text("fifo")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let node = client.lookup(top, name).unwrap().node;
        // Opening the pipe would wait for a reader for ever.
        assert_eq!(client.open(node, libc::O_WRONLY), Err(libc::ENXIO));
        assert_eq!(client.create(top, name, 0o600).unwrap_err(), libc::ENXIO);
    }
    let null = client.share("null", Path::new("/dev/null"), false);
    assert_eq!(client.open(null, libc::O_RDONLY), Err(libc::ENXIO));
}

#[test]
fn long_directories_are_read_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let expected: HashSet<String> = (0..400).map(|n| format!("{n}-{}", "x".repeat(n % 200))).collect();
    expected.iter().for_each(|name| fs::write(dir.path().join(name), name).unwrap());
    let mut client = Client::new();
    let top = client.share("top", dir.path(), true);
    for (size, plus) in [(512, false), (4096, false), (1 << 20, false), (512, true), (4096, true), (1 << 20, true)] {
        let listed = client.list(top, size, plus).unwrap();
        assert_eq!(listed.len(), expected.len(), "{size}");
        assert_eq!(listed.iter().map(|(name, _)| name.clone()).collect::<HashSet<_>>(), expected);
        // What was told of must be forgotten as often.
        listed.iter().for_each(|(_, node)| client.forget(*node, u64::from(plus)));
    }
    let client::Served::Here(file_system) = &client.served else { panic!("served here") };
    let file_system = file_system.clone();
    client.getattr(ROOT).unwrap();
    client.hang_up();
    assert!(file_system.known() <= 1 + 400);
}

#[test]
fn as_many_files_as_are_allowed_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        fs::write(dir.path().join(n.to_string()), "x").unwrap();
    }
    let mut client = Client::with_limits(Limits { nodes: 10, handles: 2 });
    let top = client.share("top", dir.path(), true);
    let nodes: Vec<_> = (0..9).map(|n| client.lookup(top, &n.to_string()).unwrap().node).collect();
    assert_eq!(client.lookup(top, "9").unwrap_err(), libc::ENFILE);
    // Known already.
    assert_eq!(client.lookup(top, "0").unwrap().node, nodes[0]);
    // Names are listed all the same.
    assert_eq!(client.list(top, 4096, true).unwrap().len(), 20);
    for (node, times) in [(nodes[0], 2), (nodes[1], u64::MAX), (12345, 1)] {
        client.forget(node, times);
    }
    // Every thread of the server has one request at a time: the reply to a third says that two forgets were taken.
    while client.getattr(nodes[1]).is_ok() || client.lookup(top, "9").is_err() {
        std::thread::yield_now();
    }
    assert_eq!(client.getattr(nodes[1]).unwrap_err(), libc::ESTALE);
    let first = client.open(nodes[2], libc::O_RDONLY).unwrap();
    client.open(nodes[2], libc::O_RDONLY).unwrap();
    assert_eq!(client.open(nodes[2], libc::O_RDONLY), Err(libc::ENFILE));
    client.release(nodes[2], first);
    assert!(client.open(nodes[2], libc::O_RDONLY).is_ok());
}

#[test]
fn nothing_of_a_removed_entry_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), false);
    let file = client.lookup(top, "file").unwrap().node;
    let handle = client.open(file, libc::O_RDWR).unwrap();
    client.remove("top");
    assert_eq!(client.getattr(file).unwrap_err(), libc::ESTALE);
    assert_eq!(client.read(file, handle, 0, 1), Err(libc::EBADF));
    assert_eq!(client.lookup(top, "file").unwrap_err(), libc::ESTALE);
    assert_eq!(client.lookup(ROOT, "top").unwrap_err(), libc::ENOENT);
    // The name can be had again, for something else.
    assert_ne!(client.share("top", dir.path(), false), top);
}

#[test]
fn changes_on_the_host_are_seen_and_unchanged_files_stay_cached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), true);
    let node = client.lookup(top, "file").unwrap().node;
    let kept = |client: &mut Client| {
        let reply = client.call(abi::OPEN, node, body().u64(0)).unwrap();
        reply[8] & 2 != 0
    };
    // It has changed just now: the next change could look the same.
    assert!(!kept(&mut client) && !kept(&mut client));
    assert_eq!(client.getattr(node).unwrap().size, 1);
    fs::write(&path, "longer").unwrap();
    assert_eq!(client.getattr(node).unwrap().size, 6);
    let old = Path::new("/proc/self/exe").canonicalize().unwrap();
    let settled = client.share("settled", &old, true);
    let open = |client: &mut Client| client.call(abi::OPEN, settled, body().u64(0)).unwrap()[8] & 2 != 0;
    assert!(!open(&mut client));
    let age = fs::metadata(&old).unwrap().ctime();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(open(&mut client) || i64::try_from(now).unwrap() - age < 10);
}

#[test]
fn requests_that_make_no_sense_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new();
    let top = client.share("top", dir.path(), false);
    for opcode in 0..60 {
        if matches!(opcode, abi::FORGET | abi::BATCH_FORGET | abi::INTERRUPT | abi::DESTROY) {
            continue;
        }
        for node in [0, ROOT, top, u64::MAX] {
            // Some of these have no body; nothing is created, since names are missing.
            drop(client.call(opcode, node, body()));
            drop(client.call(opcode, node, body().bytes(&[0xff; 120])));
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Lengths that are not what comes.
    for request in [&[][..], &[0; 39], &[0xff; 64]] {
        let reply = client.raw(request, 16).unwrap();
        assert_eq!(reply[4..8], (-libc::EINVAL).to_le_bytes());
    }
    // No room for a reply, and not enough of it.
    let top = client.share("again", dir.path(), false);
    let request = body().u32(43).u32(abi::LOOKUP).u64(7).u64(ROOT).u64(0).u64(0).text("no").0;
    assert_eq!(client.raw(&request, 3).unwrap().len(), 0);
    let size = client.list(top, 65536, true).unwrap().len();
    assert_eq!(size, 0);
}
