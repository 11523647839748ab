//! Python: processes with shared memory, semaphores and locks; a database in WAL mode by two of them; an HTTP server and its
//! client; subprocesses of an event loop.

use anyhow::{Result, ensure};

use super::Engine;

const PROGRAM: &str = r#"
import asyncio, http.server, mmap, multiprocessing, os, sqlite3, tempfile, threading, urllib.request
from multiprocessing import shared_memory

def add(args):
    name, path, lock, i = args
    memory = shared_memory.SharedMemory(name)
    with lock:
        memory.buf[0] += i
    memory.close()
    database = sqlite3.connect(path, timeout=60)
    with database:
        database.execute("insert into t values (?)", (i,))
    database.close()
    return i * i

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())
    def log_message(self, *args):
        pass

async def subprocesses():
    async def one(i):
        process = await asyncio.create_subprocess_exec("echo", str(i), stdout=asyncio.subprocess.PIPE)
        return int((await process.communicate())[0])
    return sum(await asyncio.gather(*(one(i) for i in range(8))))

if __name__ == "__main__":
    path = "/var/tmp/database"
    database = sqlite3.connect(path)
    assert database.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    database.execute("create table t (n)")
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    with multiprocessing.Manager() as manager, multiprocessing.Pool(3) as pool:
        lock = manager.Lock()
        print(sum(pool.map(add, [(memory.name, path, lock, i) for i in range(10)], chunksize=1)))
    print(memory.buf[0], *database.execute("select count(*), sum(n) from t").fetchone())
    memory.close()
    memory.unlink()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/path").read().decode())
    print(asyncio.run(subprocesses()))
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 0) as shared:
            shared[4096:4101] = b"bytes"
            shared.flush()
        print(os.pread(file.fileno(), 5, 4096).decode())
"#;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let script = format!("cat >/var/tmp/program.py <<'END'\n{PROGRAM}END\npython3 /var/tmp/program.py && \
                          sqlite3 /var/tmp/database 'pragma integrity_check'");
    let told = podman.sh(&[], &script)?;
    ensure!(told == "285\n45 10 45\n/path\n28\nbytes\nok", "{told}");
    Ok(())
}
