//! Requests of a hostile guest kernel: nothing outside of the entries is reached, nothing read-only changes, and every
//! request that is answered is answered in full.

#![no_main]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dewar_fs::thread::Thread;
use dewar_fs::wire::Reply;
use dewar_fs::{FileSystem, Limits};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 40;
const KEPT: &str = "as it was";

/// One server, which keeps what earlier requests made of it, as a guest would find it.
struct Server {
    dir: tempfile::TempDir,
    files: FileSystem,
    thread: Thread,
    reply: Reply,
}

impl Server {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["writable", "read-only"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
            fs::write(dir.path().join(name).join("file"), KEPT).expect("a file");
        }
        std::os::unix::fs::symlink("../outside", dir.path().join("writable/link")).expect("a link");
        fs::write(dir.path().join("outside"), KEPT).expect("a file");
        let files = FileSystem::new(Limits { nodes: 64, handles: 16 });
        let top = |name: &str| -> OwnedFd { open(&dir.path().join(name)) };
        files.tree.add("writable", false, top("writable")).expect("added");
        files.tree.add("read-only", true, top("read-only")).expect("added");
        let thread = Thread::enter(File::open("/proc/self/fd").expect("procfs").as_fd()).expect("entered");
        Self { dir, files, thread, reply: Reply::new(1 << 16) }
    }
}

fn open(path: &Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opened")
}

thread_local! {
    static SERVER: std::cell::RefCell<Server> = std::cell::RefCell::new(Server::new());
}

fuzz_target!(|data: &[u8]| {
    SERVER.with_borrow_mut(|server| {
        // Opcode, node, bytes of body, room for the answer; then the body.
        let mut rest = data;
        while let Some(([opcode, node, length, room], tail)) = rest.split_first_chunk::<4>() {
            let (body, tail) = tail.split_at(usize::from(*length).min(tail.len()));
            rest = tail;
            let mut request = Vec::with_capacity(HEADER + body.len());
            request.extend(u32::try_from(HEADER + body.len()).unwrap_or_default().to_le_bytes());
            request.extend(u32::from(*opcode).to_le_bytes());
            request.extend(7_u64.to_le_bytes());
            request.extend(u64::from(*node).to_le_bytes());
            request.extend([0; 16]);
            request.extend(body);
            server.reply.restart(16 + usize::from(*room) * 64);
            server.files.serve(&server.thread, &request, &mut server.reply);
        }
        for kept in ["outside", "read-only/file"] {
            assert_eq!(fs::read_to_string(server.dir.path().join(kept)).expect("it is there"), KEPT);
        }
    });
});
