//! The container's `/proc` as its process on the host shows it: a FUSE filesystem of a few files, asked of the guest.
//!
//! podman enters that process's mount namespace and reads `/proc` there for `podman top`. There are `stat` with the boot
//! time and for each process `stat`, `status`, `cmdline`, `attr/current` and `ns/pid`; no more, and read-only. What they
//! say is the guest's allegation. A thread of the container's process serves it, which was started before that process's
//! main thread went into the namespace. Nodes are numbered by process and file, so that none is kept track of. Protocol:
//! linux/fuse.h, version 7.31.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use dewar_protocol::{ProcFiles, ProcView, Reply, Request};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::link::Link;
use crate::{Error, ResultExt};

/// The kernel wants room for its longest request, of which there is none here.
const BUFFER: usize = 64 << 10;
const IN_HEADER: usize = 40;
const ROOT: u64 = 1;
const STAT: u64 = 2;
/// Below it no number is a process's.
const FIRST: u64 = 16;
const DIR: u32 = 0o40_555;
const FILE: u32 = 0o100_444;
const LINK: u32 = 0o120_777;
/// What is read is not kept, and its length need not be told before.
const DIRECT_IO: u32 = 1;

/// A server that waits for its filesystem to be mounted.
#[derive(Debug)]
pub(super) struct ProcServer {
    device: OwnedFd,
    mounted: Sender<()>,
}

impl ProcServer {
    pub(super) fn prepare(sandbox: PathBuf, container: String) -> Result<Self, Error> {
        let failed = || "Cannot use /dev/fuse".to_owned();
        let device = File::options().read(true).write(true).open("/dev/fuse").context(failed)?;
        let (mounted, is_mounted) = channel();
        let served = device.try_clone().context(failed)?;
        let serve = move || serve(served, &is_mounted, Guest { sandbox, container, view: ProcView::default() });
        std::thread::Builder::new().name("proc".into()).spawn(serve).context(|| "Cannot start a thread".into())?;
        Ok(Self { device: device.into(), mounted })
    }

    /// Mounts it on a directory, in the namespace of the calling thread.
    pub(super) fn mount(self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        let options = format!("fd={},rootmode={DIR:o},user_id=0,group_id=0,allow_other\0", self.device.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("dewar-proc", format!("/proc/self/fd/{}", target.as_raw_fd()), "fuse", flags, options)?;
        // The thread has gone only when this process ends.
        let _ = self.mounted.send(());
        Ok(())
    }
}

fn serve(mut device: File, mounted: &Receiver<()>, mut guest: Guest) {
    if mounted.recv().is_err() {
        return;
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        let request = match device.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            // A request that was taken back, and a signal.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)) => continue,
            // Unmounted.
            Err(_) => return,
        };
        let Some((unique, answer)) = guest.answer(request) else { continue };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let length = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        let reply = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &body].concat();
        // Who asked may have gone.
        let _ = device.write_all(&reply);
    }
}

/// What one node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Root,
    Boot,
    /// Of a process.
    Of(u32, Part),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Dir,
    Stat,
    Status,
    Cmdline,
    Attr,
    Current,
    Ns,
    Pid,
}

/// Directory, name and kind of all that a process has.
const PARTS: [(Part, &str, Part, u32); 7] = [
    (Part::Dir, "stat", Part::Stat, FILE),
    (Part::Dir, "status", Part::Status, FILE),
    (Part::Dir, "cmdline", Part::Cmdline, FILE),
    (Part::Dir, "attr", Part::Attr, DIR),
    (Part::Dir, "ns", Part::Ns, DIR),
    (Part::Attr, "current", Part::Current, FILE),
    (Part::Ns, "pid", Part::Pid, LINK),
];

impl Node {
    fn id(self) -> u64 {
        match self {
            Self::Root => ROOT,
            Self::Boot => STAT,
            Self::Of(pid, part) => (u64::from(pid) << 4) | part as u64,
        }
    }

    fn of_id(id: u64) -> Option<Self> {
        let parts = PARTS.iter().map(|(_, _, part, _)| *part).chain([Part::Dir]);
        match id {
            ROOT => Some(Self::Root),
            STAT => Some(Self::Boot),
            0..FIRST => None,
            _ => {
                let part = parts.into_iter().find(|part| *part as u64 == id & 15)?;
                Some(Self::Of(u32::try_from(id >> 4).ok()?, part))
            }
        }
    }

    fn mode(self) -> u32 {
        match self {
            Self::Root | Self::Of(_, Part::Dir) => DIR,
            Self::Boot => FILE,
            Self::Of(_, part) => PARTS.iter().find(|(_, _, one, _)| *one == part).map_or(FILE, |(.., mode)| *mode),
        }
    }
}

struct Guest {
    sandbox: PathBuf,
    container: String,
    /// As of the last look at the list of processes.
    view: ProcView,
}

type Answer = Result<Vec<u8>, Errno>;

impl Guest {
    /// The request's number and its answer; `None` for one that wants none.
    fn answer(&mut self, request: &[u8]) -> Option<(u64, Answer)> {
        let opcode = u32_at(request, 4)?;
        let unique = u64_at(request, 8)?;
        let body = request.get(IN_HEADER..).unwrap_or_default();
        let node = u64_at(request, 16).and_then(Node::of_id).ok_or(Errno::NOENT);
        let answer = match opcode {
            opcode::FORGET | opcode::INTERRUPT | opcode::BATCH_FORGET => return None,
            opcode::INIT => Ok(init()),
            opcode::LOOKUP => node.and_then(|node| self.look_up(node, body)),
            opcode::GETATTR => node.map(|node| [&[0; 16][..], &attributes(node)].concat()),
            opcode::READLINK => node.and_then(|node| self.contents(node)),
            opcode::OPEN => node.and_then(|node| self.contents(node)).map(|_| opened(DIRECT_IO)),
            opcode::READ => node.and_then(|node| self.contents(node)).map(|text| part_of(&text, body)),
            opcode::OPENDIR => node.and_then(|node| self.open_dir(node)).map(|()| opened(0)),
            opcode::READDIR => node.map(|node| list(&self.entries(node), body)),
            opcode::STATFS => Ok(vec![0; 80]),
            opcode::RELEASE | opcode::FLUSH | opcode::RELEASEDIR | opcode::DESTROY => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        };
        Some((unique, answer))
    }

    fn refresh(&mut self) -> Result<(), Errno> {
        let request = Request::ProcView { container: self.container.clone() };
        match Link::connect(&self.sandbox).and_then(|mut link| link.agent(request)) {
            Ok(Reply::ProcView(view)) => self.view = view,
            Ok(_) => return Err(Errno::PROTO),
            Err(error) => {
                eprintln!("dewar-supervisor: the container's processes are not shown: {}", error.chain());
                return Err(Errno::IO);
            }
        }
        // Zero names no process.
        self.view.processes.retain(|files| files.pid != 0);
        Ok(())
    }

    fn open_dir(&mut self, node: Node) -> Result<(), Errno> {
        match node {
            Node::Root => self.refresh(),
            Node::Of(pid, _) => self.process(pid).map(drop),
            Node::Boot => Err(Errno::NOTDIR),
        }
    }

    fn process(&self, pid: u32) -> Result<&ProcFiles, Errno> {
        self.view.processes.iter().find(|files| files.pid == pid).ok_or(Errno::NOENT)
    }

    fn look_up(&mut self, parent: Node, body: &[u8]) -> Answer {
        let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| Errno::NOENT)?;
        let is_there = |guest: &Self| guest.entries(parent).into_iter().find(|(entry, _)| entry == name);
        let mut found = is_there(self);
        if found.is_none() && parent == Node::Root && name.parse::<u32>().is_ok() {
            // It may have come since.
            self.refresh()?;
            found = is_there(self);
        }
        let (_, node) = found.ok_or(Errno::NOENT)?;
        // Nothing is to be remembered: neither that it is there nor what it is.
        Ok([&node.id().to_ne_bytes()[..], &[0; 32], &attributes(node)].concat())
    }

    /// What is in a directory.
    fn entries(&self, dir: Node) -> Vec<(String, Node)> {
        match dir {
            Node::Root => {
                let pids = self.view.processes.iter().map(|files| files.pid);
                let processes = pids.map(|pid| (pid.to_string(), Node::Of(pid, Part::Dir)));
                processes.chain([("stat".to_owned(), Node::Boot)]).collect()
            }
            Node::Boot => Vec::new(),
            Node::Of(pid, _) if self.process(pid).is_err() => Vec::new(),
            Node::Of(pid, part) => {
                let own = PARTS.iter().filter(|(dir, ..)| *dir == part);
                own.map(|(_, name, part, _)| ((*name).to_owned(), Node::Of(pid, *part))).collect()
            }
        }
    }

    fn contents(&self, node: Node) -> Answer {
        let (pid, part) = match node {
            Node::Root => return Err(Errno::ISDIR),
            Node::Boot => return Ok(format!("btime {}\n", self.view.boot_seconds).into_bytes()),
            Node::Of(pid, part) => (pid, part),
        };
        let files = self.process(pid)?;
        match part {
            Part::Dir | Part::Attr | Part::Ns => Err(Errno::ISDIR),
            Part::Stat => Ok(files.stat.clone()),
            Part::Status => Ok(files.status.clone()),
            Part::Cmdline => Ok(files.cmdline.clone()),
            Part::Current => Ok(Vec::new()),
            // The host knows no number of the guest's namespace.
            Part::Pid => Ok(b"pid:[0]".to_vec()),
        }
    }
}

/// Kinds of requests.
mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const READLINK: u32 = 5;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// `fuse_init_out`: no feature is asked for, and nothing is ever written.
fn init() -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for word in [7_u32, 31, 0, 0, 0, 4096, 1] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.resize(64, 0);
    out
}

/// `fuse_open_out`.
fn opened(flags: u32) -> Vec<u8> {
    [&[0; 8][..], &flags.to_ne_bytes(), &[0; 4]].concat()
}

/// `fuse_attr`.
fn attributes(node: Node) -> Vec<u8> {
    let mut out = vec![0; 88];
    let links: u32 = if node.mode() == DIR { 2 } else { 1 };
    for (place, value) in
        [(0, &node.id().to_ne_bytes()[..]), (60, &node.mode().to_ne_bytes()), (64, &links.to_ne_bytes())]
    {
        if let Some(field) = out.get_mut(place..place + value.len()) {
            field.copy_from_slice(value);
        }
    }
    out
}

/// As much as `fuse_read_in` asks for.
fn part_of(text: &[u8], body: &[u8]) -> Vec<u8> {
    let offset = u64_at(body, 8).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(usize::MAX);
    let size = u32_at(body, 16).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    text.iter().skip(offset).take(size).copied().collect()
}

/// `fuse_dirent`s, from the one that `fuse_read_in` names on, as many as it has room for.
fn list(entries: &[(String, Node)], body: &[u8]) -> Vec<u8> {
    let offset = u64_at(body, 8).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(usize::MAX);
    let size = u32_at(body, 16).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let mut out = Vec::new();
    for (index, (name, node)) in (1_u64..).zip(entries).skip(offset) {
        let length = u32::try_from(name.len()).unwrap_or(0);
        let kind = node.mode() >> 12;
        let mut entry =
            [&node.id().to_ne_bytes()[..], &index.to_ne_bytes(), &length.to_ne_bytes(), &kind.to_ne_bytes()].concat();
        entry.extend_from_slice(name.as_bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        if out.len() + entry.len() > size {
            break;
        }
        out.extend(entry);
    }
    out
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(place..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], place: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(place..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        let files =
            ProcFiles { pid: 7, stat: b"7 (sh) S".to_vec(), status: b"Pid:\t7\n".to_vec(), cmdline: b"sh\0".to_vec() };
        let view = ProcView { boot_seconds: 5, processes: vec![files] };
        Guest { sandbox: "/nowhere".into(), container: "box".into(), view }
    }

    fn ask(guest: &mut Guest, opcode: u32, node: u64, body: &[u8]) -> Answer {
        let mut request = vec![0; IN_HEADER];
        request[4..8].copy_from_slice(&opcode.to_ne_bytes());
        request[8..16].copy_from_slice(&99_u64.to_ne_bytes());
        request[16..24].copy_from_slice(&node.to_ne_bytes());
        request.extend_from_slice(body);
        let (unique, answer) = guest.answer(&request).expect("is answered");
        assert_eq!(unique, 99);
        answer
    }

    /// `fuse_read_in`.
    fn span(offset: u64, size: u32) -> Vec<u8> {
        [&[0; 8][..], &offset.to_ne_bytes(), &size.to_ne_bytes(), &[0; 20]].concat()
    }

    #[test]
    fn every_node_is_known_by_its_number() {
        for part in PARTS.iter().map(|(_, _, part, _)| *part).chain([Part::Dir]) {
            for pid in [1, u32::MAX] {
                assert_eq!(Node::of_id(Node::Of(pid, part).id()), Some(Node::Of(pid, part)));
            }
        }
        for id in [0, 3, 15, (1 << 4) | 8, u64::MAX] {
            assert_eq!(Node::of_id(id), None, "{id}");
        }
    }

    #[test]
    fn files_are_found_and_read() {
        let mut guest = guest();
        let entry = ask(&mut guest, opcode::LOOKUP, ROOT, b"7\0").expect("is there");
        assert_eq!((entry.len(), u64_at(&entry, 0)), (128, Some(Node::Of(7, Part::Dir).id())));
        let entry = ask(&mut guest, opcode::LOOKUP, Node::Of(7, Part::Dir).id(), b"status\0").expect("is there");
        let status = u64_at(&entry, 0).expect("has a number");
        assert_eq!(u32_at(&entry, 40 + 60), Some(FILE));
        assert_eq!(ask(&mut guest, opcode::READ, status, &span(0, 4096)), Ok(b"Pid:\t7\n".to_vec()));
        assert_eq!(ask(&mut guest, opcode::READ, status, &span(5, 1)), Ok(b"7".to_vec()));
        assert_eq!(ask(&mut guest, opcode::READ, status, &span(u64::MAX, 1)), Ok(Vec::new()));
        assert_eq!(ask(&mut guest, opcode::READ, STAT, &span(0, 99)), Ok(b"btime 5\n".to_vec()));
        assert_eq!(ask(&mut guest, opcode::READLINK, Node::Of(7, Part::Pid).id(), b""), Ok(b"pid:[0]".to_vec()));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let mut guest = guest();
        assert_eq!(ask(&mut guest, opcode::LOOKUP, ROOT, b"meminfo\0"), Err(Errno::NOENT));
        assert_eq!(ask(&mut guest, opcode::LOOKUP, Node::Of(7, Part::Dir).id(), b"mem\0"), Err(Errno::NOENT));
        assert_eq!(ask(&mut guest, opcode::LOOKUP, ROOT, b"\xff"), Err(Errno::NOENT));
        assert_eq!(ask(&mut guest, opcode::READ, Node::Of(8, Part::Stat).id(), &span(0, 9)), Err(Errno::NOENT));
        // There is no sandbox to ask.
        assert_eq!(ask(&mut guest, opcode::OPENDIR, ROOT, b""), Err(Errno::IO));
        // WRITE
        assert_eq!(ask(&mut guest, 16, STAT, &span(0, 9)), Err(Errno::NOSYS));
        for length in 0..16 {
            assert!(guest.answer(&vec![1; length]).is_none());
        }
    }

    #[test]
    fn a_directory_is_listed_in_as_many_parts_as_the_reader_wants() {
        let mut guest = guest();
        let whole = ask(&mut guest, opcode::READDIR, ROOT, &span(0, 4096)).expect("is a directory");
        assert_eq!(whole.len(), 32 + 32);
        assert_eq!((u32_at(&whole, 16), u32_at(&whole, 20), whole[24]), (Some(1), Some(DIR >> 12), b'7'));
        assert_eq!(ask(&mut guest, opcode::READDIR, ROOT, &span(0, 63)), Ok(whole[..32].to_vec()));
        assert_eq!(ask(&mut guest, opcode::READDIR, ROOT, &span(1, 4096)), Ok(whole[32..].to_vec()));
        assert_eq!(ask(&mut guest, opcode::READDIR, ROOT, &span(2, 4096)), Ok(Vec::new()));
    }
}
