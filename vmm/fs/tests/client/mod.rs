//! The device's and the guest kernel's side of the server: requests by their fields, replies taken apart.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use dewar_fs::serve::Link;
use dewar_fs::thread::Thread;
use dewar_fs::{FileSystem, Limits, abi};
use dewar_vmm_api::fs_link::{HEADER_SIZE, MAX_FRAME, ReplyHeader, RequestHeader};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};

/// Number of the made-up root directory.
pub const ROOT: u64 = 1;

/// Error numbers, or what was answered.
pub type Answer = Result<Vec<u8>, i32>;

/// A connection as a guest.
pub struct Client {
    socket: UnixStream,
    pub uid: u32,
    pub gid: u32,
    unique: u64,
    pub served: Served,
}

/// Who is at the other end.
pub enum Served {
    Here(Arc<FileSystem>),
    Process { child: Child, control: OwnedFd, _dir: tempfile::TempDir },
}

/// What LOOKUP tells.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub node: u64,
    pub inode: u64,
    pub size: u64,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Found {
    fn of_attr(node: u64, attr: &[u8]) -> Self {
        Self {
            node,
            inode: u64_at(attr, 0),
            size: u64_at(attr, 8),
            mode: u32_at(attr, 60),
            links: u32_at(attr, 64),
            uid: u32_at(attr, 68),
            gid: u32_at(attr, 72),
        }
    }

    pub fn of_entry(entry: &[u8]) -> Self {
        Self::of_attr(u64_at(entry, 0), &entry[40..])
    }
}

/// A request's body, field by field.
#[derive(Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn text(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

pub fn body() -> Body {
    Body::default()
}

impl Client {
    /// A server in this process, with as few descriptors as `limits` says.
    pub fn with_limits(limits: Limits) -> Self {
        let file_system = Arc::new(FileSystem::new(limits));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Arc::new(Link::new(theirs).unwrap());
        for _ in 0..3 {
            let (file_system, link) = (file_system.clone(), link.clone());
            std::thread::spawn(move || {
                let thread = Thread::enter(File::open("/proc/self/fd").unwrap().as_fd()).unwrap();
                // A test that breaks the rules ends its server.
                drop(link.serve(&file_system, &thread));
            });
        }
        Self::initialized(ours, Served::Here(file_system))
    }

    pub fn new() -> Self {
        Self::with_limits(Limits { nodes: 1000, handles: 100 })
    }

    /// The program, in its jail.
    pub fn of_program() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs.sock");
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dewar-fs"));
        command.arg("--socket").arg(&path).stdin(theirs).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        drop(command);
        let mut word = [0; 64];
        let (_, len) = recv(&control, &mut word, RecvFlags::empty()).unwrap();
        assert_eq!(&word[..len], b"ready");
        let socket = UnixStream::connect(&path).unwrap();
        let client = Self::initialized(socket, Served::Process { child, control, _dir: dir });
        assert!(!path.exists());
        client
    }

    fn initialized(socket: UnixStream, served: Served) -> Self {
        let mut client = Self { socket, uid: 0, gid: 0, unique: 0, served };
        let reply = client.call(abi::INIT, 0, body().u32(7).u32(38).u32(1 << 20).u32(u32::MAX).u64(0).u64(0)).unwrap();
        assert_eq!((u32_at(&reply, 0), u32_at(&reply, 4), reply.len()), (7, 38, 64));
        client
    }

    /// Adds `path` as an entry, and answers its node.
    pub fn share(&mut self, name: &str, path: &Path, read_only: bool) -> u64 {
        let file = File::open(path).unwrap();
        match &self.served {
            Served::Here(file_system) => file_system.tree.add(name, read_only, file.into()).unwrap(),
            Served::Process { .. } => {
                let access = if read_only { "ro" } else { "rw" };
                assert_eq!(self.control(&format!("add\0{name}\0{access}"), Some(file.into())), "ok");
            }
        }
        self.lookup(ROOT, name).unwrap().node
    }

    pub fn seal(&self, name: &str) {
        match &self.served {
            Served::Here(file_system) => file_system.seal(name).unwrap(),
            Served::Process { .. } => assert_eq!(self.control(&format!("seal\0{name}"), None), "ok"),
        }
    }

    pub fn remove(&self, name: &str) {
        match &self.served {
            Served::Here(file_system) => file_system.remove(name).unwrap(),
            Served::Process { .. } => assert_eq!(self.control(&format!("remove\0{name}"), None), "ok"),
        }
    }

    fn control(&self, request: &str, passed: Option<OwnedFd>) -> String {
        let Served::Process { control, .. } = &self.served else { panic!("there is no control socket") };
        let descriptors: Vec<_> = passed.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(control, &[IoSlice::new(request.as_bytes())], &mut ancillary, SendFlags::empty()).unwrap();
        let mut answer = [0; 256];
        let (_, len) = recv(control, &mut answer, RecvFlags::empty()).unwrap();
        String::from_utf8(answer[..len].to_vec()).unwrap()
    }

    /// Sends a request, and reads its reply if there shall be one.
    pub fn raw(&mut self, request: &[u8], max_reply: u32) -> Option<Vec<u8>> {
        let tag = self.unique + 1000;
        let header = RequestHeader { len: u32::try_from(request.len()).unwrap(), max_reply, tag };
        self.socket.write_all(&header.to_bytes()).unwrap();
        self.socket.write_all(request).unwrap();
        (max_reply > 0).then(|| {
            let mut header = [0; HEADER_SIZE];
            self.socket.read_exact(&mut header).unwrap();
            let header = ReplyHeader::from_bytes(header);
            assert_eq!(header.tag, tag);
            assert!(header.len <= max_reply);
            let mut reply = vec![0; usize::try_from(header.len).unwrap()];
            self.socket.read_exact(&mut reply).unwrap();
            reply
        })
    }

    fn request(&mut self, opcode: u32, node: u64, body: &Body) -> Vec<u8> {
        self.unique += 2;
        let len = u32::try_from(40 + body.0.len()).unwrap();
        let head = super::client::body().u32(len).u32(opcode).u64(self.unique).u64(node);
        head.u32(self.uid).u32(self.gid).u32(1).u32(0).bytes(&body.0).0
    }

    pub fn call(&mut self, opcode: u32, node: u64, body: Body) -> Answer {
        let request = self.request(opcode, node, &body);
        let reply = self.raw(&request, MAX_FRAME).unwrap();
        assert_eq!(usize::try_from(u32_at(&reply, 0)).unwrap(), reply.len());
        assert_eq!(u64_at(&reply, 8), self.unique);
        match u32_at(&reply, 4).cast_signed() {
            0 => Ok(reply[16..].to_vec()),
            error => {
                assert_eq!(reply.len(), 16);
                Err(-error)
            }
        }
    }

    pub fn forget(&mut self, node: u64, count: u64) {
        let request = self.request(abi::FORGET, node, &body().u64(count));
        assert!(self.raw(&request, 0).is_none());
    }

    pub fn lookup(&mut self, dir: u64, name: &str) -> Result<Found, i32> {
        self.call(abi::LOOKUP, dir, body().text(name)).map(|entry| Found::of_entry(&entry))
    }

    pub fn getattr(&mut self, node: u64) -> Result<Found, i32> {
        let reply = self.call(abi::GETATTR, node, body().u64(0).u64(0))?;
        Ok(Found::of_attr(node, &reply[16..]))
    }

    /// `valid` says which of the fields count.
    pub fn setattr(&mut self, node: u64, valid: u32, size: u64, mode: u32, owner: (u32, u32)) -> Answer {
        let fields = body().u32(valid).u32(0).u64(0).u64(size).u64(0).u64(5).u64(6).u64(0);
        let fields = fields.u32(7).u32(8).u32(0).u32(mode).u32(0).u32(owner.0).u32(owner.1).u32(0);
        self.call(abi::SETATTR, node, fields)
    }

    pub fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        self.call(abi::OPEN, node, body().u32(flags.unsigned_abs()).u32(0)).map(|reply| u64_at(&reply, 0))
    }

    pub fn create(&mut self, dir: u64, name: &str, mode: u32) -> Result<(Found, u64), i32> {
        let flags = (libc::O_RDWR | libc::O_CREAT).unsigned_abs();
        let fields = body().u32(flags).u32(libc::S_IFREG | mode).u32(0o022).u32(0).text(name);
        self.call(abi::CREATE, dir, fields).map(|reply| (Found::of_entry(&reply), u64_at(&reply, 128)))
    }

    pub fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Answer {
        self.call(abi::READ, node, body().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0))
    }

    pub fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer {
        let size = u32::try_from(data.len()).unwrap();
        let fields = body().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0).bytes(data);
        self.call(abi::WRITE, node, fields)
    }

    pub fn release(&mut self, node: u64, handle: u64) {
        self.call(abi::RELEASE, node, body().u64(handle).u32(0).u32(0).u64(0)).unwrap();
    }

    pub fn mkdir(&mut self, dir: u64, name: &str) -> Result<Found, i32> {
        let reply = self.call(abi::MKDIR, dir, body().u32(0o777).u32(0o022).text(name))?;
        Ok(Found::of_entry(&reply))
    }

    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Answer {
        self.call(abi::RENAME2, from.0, body().u64(to.0).u32(flags).u32(0).text(from.1).text(to.1))
    }

    pub fn setxattr(&mut self, node: u64, name: &str, value: &[u8]) -> Answer {
        let size = u32::try_from(value.len()).unwrap();
        self.call(abi::SETXATTR, node, body().u32(size).u32(0).u64(0).text(name).bytes(value))
    }

    pub fn getxattr(&mut self, node: u64, name: &str, size: u32) -> Answer {
        self.call(abi::GETXATTR, node, body().u32(size).u32(0).text(name))
    }

    /// All names of a directory, asked for `size` bytes at a time, with the nodes that READDIRPLUS gives.
    pub fn list(&mut self, dir: u64, size: u32, plus: bool) -> Result<Vec<(String, u64)>, i32> {
        let reply = self.call(abi::OPENDIR, dir, body().u64(0))?;
        let handle = u64_at(&reply, 0);
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let opcode = if plus { abi::READDIRPLUS } else { abi::READDIR };
            let fields = body().u64(handle).u64(offset).u32(size).u32(0).u64(0).u64(0);
            let reply = self.call(opcode, dir, fields)?;
            assert!(reply.len() <= usize::try_from(size).unwrap());
            if reply.is_empty() {
                break;
            }
            let mut rest = &reply[..];
            while !rest.is_empty() {
                let node = if plus { u64_at(rest, 0) } else { 0 };
                let entry = &rest[if plus { 128 } else { 0 }..];
                offset = u64_at(entry, 8);
                let len = usize::try_from(u32_at(entry, 16)).unwrap();
                names.push((String::from_utf8(entry[24..24 + len].to_vec()).unwrap(), node));
                rest = &entry[(24 + len).next_multiple_of(8)..];
            }
        }
        self.call(abi::RELEASEDIR, dir, body().u64(handle).u32(0).u32(0).u64(0))?;
        names.retain(|(name, _)| name != "." && name != "..");
        Ok(names)
    }

    /// Hangs up, and says how the program ended.
    pub fn hang_up(self) -> Option<std::process::ExitStatus> {
        drop(self.socket);
        match self.served {
            Served::Process { mut child, .. } => Some(child.wait().unwrap()),
            Served::Here(_) => None,
        }
    }
}
