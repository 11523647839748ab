//! One request in, one reply out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use dewar_vmm_api::fs_link::{FUSE_IN_HEADER, FUSE_OUT_HEADER};
use rustix::fs::Statx;
use rustix::io::Errno;

use crate::abi;
use crate::handles::Handles;
use crate::nodes::Nodes;
use crate::thread::Thread;
use crate::tree::Tree;
use crate::wire::{Reader, Reply};

/// Devices whose files keep numbers of their own.
const MAX_DEVICES: usize = 1 << 12;

/// How many files the guest can know and open.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub nodes: usize,
    pub handles: usize,
}

impl Limits {
    /// For a process that can open `descriptors`: each node and each handle is one of them.
    #[must_use]
    pub fn of_descriptors(descriptors: u64) -> Self {
        let all = usize::try_from(descriptors.saturating_sub(64)).unwrap_or(usize::MAX);
        let handles = all / 4;
        // The rest is for requests under way.
        Self { nodes: all.saturating_sub(handles).saturating_sub(all / 16), handles }
    }
}

/// The whole state. Shared by all threads that serve requests.
#[derive(Debug)]
pub struct FileSystem {
    pub tree: Tree,
    pub(crate) nodes: Nodes,
    pub(crate) handles: Handles,
    devices: Mutex<Vec<(u32, u32)>>,
    /// The guest's kernel takes the longer form of SETXATTR.
    pub(crate) long_setxattr: AtomicBool,
}

/// A request's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
}

/// A request without its header, and what is needed to carry it out.
pub(crate) struct Call<'a> {
    pub header: Header,
    pub body: Reader<'a>,
    pub thread: &'a Thread,
}

impl FileSystem {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            tree: Tree::default(),
            nodes: Nodes::new(limits.nodes),
            handles: Handles::new(limits.handles),
            devices: Mutex::default(),
            long_setxattr: AtomicBool::new(false),
        }
    }

    /// Takes an entry out and closes all that the guest knows below it, so that its file system can be unmounted.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        let entry = self.tree.remove(name)?;
        self.handles.close_all(|handle| handle.entry.id == entry.id);
        self.nodes.drop_all(|node| node.entry.id == entry.id);
        Ok(())
    }

    /// Makes an entry read-only from now on: what the guest has open below it is closed.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn seal(&self, name: &str) -> Result<(), Errno> {
        let entry = self.tree.seal(name)?;
        self.handles.close_all(|handle| handle.entry.id == entry.id);
        Ok(())
    }

    /// How many files the guest knows now.
    #[must_use]
    pub fn known(&self) -> usize {
        self.nodes.count()
    }

    /// Carries out `request`, whatever it says, and leaves what goes back to the guest in `reply`: nothing for a request
    /// that is not answered.
    pub fn serve(&self, thread: &Thread, request: &[u8], reply: &mut Reply) {
        let (unique, result) = match self.header(request) {
            Ok((opcode, unique, header)) => {
                let room = reply.bytes(&[0; FUSE_OUT_HEADER]);
                let body = Reader::new(request.get(FUSE_IN_HEADER..).unwrap_or_default());
                let call = Call { header, body, thread };
                if matches!(opcode, abi::FORGET | abi::BATCH_FORGET | abi::INTERRUPT) {
                    self.forget(opcode, call);
                    return reply.truncate(0);
                }
                (unique, room.and_then(|()| self.dispatch(opcode, call, reply)))
            }
            Err(error) => (0, reply.bytes(&[0; FUSE_OUT_HEADER]).and(Err(error))),
        };
        let error = result.map_or_else(Errno::raw_os_error, |()| 0);
        if error != 0 {
            reply.truncate(FUSE_OUT_HEADER);
        }
        let len = u32::try_from(reply.len()).unwrap_or(u32::MAX);
        reply.patch(0, &len.to_le_bytes());
        reply.patch(4, &error.wrapping_neg().to_le_bytes());
        reply.patch(8, &unique.to_le_bytes());
    }

    fn header(&self, request: &[u8]) -> Result<(u32, u64, Header), Errno> {
        let mut reader = Reader::new(request);
        let len = reader.u32()?;
        let opcode = reader.u32()?;
        let unique = reader.u64()?;
        let header = Header { node: reader.u64()?, uid: reader.u32()?, gid: reader.u32()? };
        // The process in the guest, and the length of extensions, of which none was agreed on.
        reader.bytes(8)?;
        if usize::try_from(len) == Ok(request.len()) { Ok((opcode, unique, header)) } else { Err(Errno::INVAL) }
    }

    fn dispatch(&self, opcode: u32, call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        match opcode {
            abi::INIT => self.init(call, reply),
            abi::DESTROY => self.destroy(),
            abi::LOOKUP => self.lookup(call, reply),
            abi::GETATTR => self.getattr(call, reply),
            abi::SETATTR => self.setattr(call, reply),
            abi::READLINK => self.readlink(call, reply),
            abi::STATFS => self.statfs(call, reply),
            abi::OPEN => self.open(call, reply),
            abi::READ => self.read(call, reply),
            abi::WRITE => self.write(call, reply),
            abi::FLUSH => self.flush(call),
            abi::RELEASE | abi::RELEASEDIR => self.release(call),
            abi::FSYNC | abi::FSYNCDIR => self.fsync(call),
            abi::SYNCFS => self.syncfs(call),
            abi::FALLOCATE => self.fallocate(call),
            abi::LSEEK => self.lseek(call, reply),
            abi::COPY_FILE_RANGE => self.copy_file_range(call, reply),
            abi::OPENDIR => self.opendir(call, reply),
            abi::READDIR => self.readdir(call, reply, false),
            abi::READDIRPLUS => self.readdir(call, reply, true),
            abi::CREATE => self.create(call, reply),
            abi::TMPFILE => self.tmpfile(call, reply),
            abi::MKNOD => self.mknod(call, reply),
            abi::MKDIR => self.mkdir(call, reply),
            abi::SYMLINK => self.symlink(call, reply),
            abi::LINK => self.link(call, reply),
            abi::UNLINK => self.unlink(call, false),
            abi::RMDIR => self.unlink(call, true),
            abi::RENAME => self.rename(call, false),
            abi::RENAME2 => self.rename(call, true),
            abi::GETXATTR => self.getxattr(call, reply),
            abi::LISTXATTR => self.listxattr(call, reply),
            abi::SETXATTR => self.setxattr(call),
            abi::REMOVEXATTR => self.removexattr(call),
            // Locks among them: the guest's kernel then keeps them by itself.
            _ => Err(Errno::NOSYS),
        }
    }

    fn init(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (major, minor) = (call.body.u32()?, call.body.u32()?);
        let (readahead, offered) = (call.body.u32()?, call.body.u32()?);
        if major != abi::MAJOR || minor < abi::OLDEST_MINOR {
            return Err(Errno::PROTO);
        }
        // A guest that starts anew knows nothing.
        self.destroy()?;
        let wanted = abi::init::ASYNC_READ
            | abi::init::ATOMIC_O_TRUNC
            | abi::init::BIG_WRITES
            | abi::init::DONT_MASK
            | abi::init::AUTO_INVAL_DATA
            | abi::init::DO_READDIRPLUS
            | abi::init::READDIRPLUS_AUTO
            | abi::init::ASYNC_DIO
            | abi::init::PARALLEL_DIROPS
            | abi::init::POSIX_ACL
            | abi::init::MAX_PAGES
            // A symbolic link never points elsewhere: changing one makes another file.
            | abi::init::CACHE_SYMLINKS
            | abi::init::HANDLE_KILLPRIV_V2
            | abi::init::SETXATTR_EXT;
        let flags = offered & wanted;
        self.long_setxattr.store(flags & abi::init::SETXATTR_EXT != 0, Ordering::SeqCst);
        let max_data = dewar_vmm_api::fs_link::MAX_DATA;
        reply.u32(abi::MAJOR)?;
        reply.u32(minor.min(abi::MINOR))?;
        reply.u32(readahead.min(max_data))?;
        reply.u32(flags)?;
        // Requests in the background at most, and from how many on the guest slows down.
        reply.bytes(&64u16.to_le_bytes())?;
        reply.bytes(&48u16.to_le_bytes())?;
        reply.u32(max_data)?;
        // Nanoseconds of a timestamp's unit.
        reply.u32(1)?;
        let max_pages = u16::try_from(max_data / 4096).unwrap_or(u16::MAX);
        reply.bytes(&max_pages.to_le_bytes())?;
        // No mapping of files into the guest, none of the newer features.
        reply.bytes(&[0; 2 + 4 + 28])
    }

    fn destroy(&self) -> Result<(), Errno> {
        self.handles.close_all(|_| true);
        self.nodes.drop_all(|_| true);
        Ok(())
    }

    fn forget(&self, opcode: u32, mut call: Call<'_>) {
        if opcode == abi::FORGET {
            if let Ok(count) = call.body.u64() {
                self.nodes.forget(call.header.node, count);
            }
        } else if opcode == abi::BATCH_FORGET
            && let (Ok(count), Ok(_)) = (call.body.u32(), call.body.u32())
        {
            for _ in 0..count {
                let (Ok(node), Ok(times)) = (call.body.u64(), call.body.u64()) else { return };
                self.nodes.forget(node, times);
            }
        }
        // An interrupt is no concern: requests are short, and the guest waits for their replies all the same.
    }

    /// The number that the guest shows for a file: the host's, made different for the files of each further file system
    /// below the entries, since the guest sees only one.
    pub(crate) fn inode_number(&self, device: (u32, u32), inode: u64) -> u64 {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = devices.iter().position(|known| *known == device);
        let index = known.unwrap_or_else(|| {
            if devices.len() < MAX_DEVICES {
                devices.push(device);
            }
            devices.len().saturating_sub(1)
        });
        inode ^ (u64::try_from(index).unwrap_or_default() << 48)
    }

    pub(crate) fn inode_of(&self, stat: &Statx) -> u64 {
        self.inode_number((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
    }
}
