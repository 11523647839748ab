//! A container whose seccomp filter is off can make vsock sockets, but neither the agent nor the host answers them.

use anyhow::{Result, ensure};

use crate::archive::{Layer, busybox_layer};
use crate::{Host, Outcome};

const RPC_PORT: u32 = 1024;
const STREAM_PORT: u32 = 1025;
const OF_THIS_MACHINE: u32 = 1;
const OF_THE_HOST: u32 = 2;
const OF_THE_GUEST: u32 = 3;

pub fn run(host: &Host) -> Result<Outcome> {
    let mut layer = Layer::default();
    let mut names = Vec::new();
    for cid in [OF_THIS_MACHINE, OF_THE_HOST, OF_THE_GUEST] {
        for port in [RPC_PORT, STREAM_PORT] {
            let name = format!("connect-{cid}-{port}");
            layer = layer.file(&name, 0o755, &program(cid, port))?;
            names.push(name);
        }
    }
    let image = host.load(&[busybox_layer(host)?, layer.finish()?])?;
    for name in &names {
        let path = format!("/{name}");
        let flags = ["run", "--rm", "--security-opt", "seccomp=unconfined", "--cap-add", "all", &image, &path];
        let finished = host.dewar(&flags).finish()?;
        // The exit code is the error of `connect`: a socket there was.
        let refused = [libc::ECONNRESET, libc::ECONNREFUSED, libc::ETIMEDOUT, libc::ENODEV, libc::ENETUNREACH];
        ensure!(refused.contains(&finished.code), "{name}: {finished:?}");
    }
    // With the filter there is not even a socket.
    let path = format!("/{}", names[0]);
    let finished = host.dewar(&["run", "--rm", &image, &path]).finish()?;
    ensure!([libc::EPERM, libc::EAFNOSUPPORT].contains(&finished.code), "{finished:?}");
    host.dewar(&["rmi", &image]).finish()?.success()?;
    Ok(Outcome::Passed)
}

/// An ELF that makes a vsock socket, connects it, and exits with the error, or 0.
fn program(cid: u32, port: u32) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // socket(AF_VSOCK, SOCK_STREAM, 0); connect(it, address, 16); exit(-what the last of them answered)
    let code: [&[u8]; 6] = [
        b"\xb8\x29\0\0\0\xbf\x28\0\0\0\xbe\x01\0\0\0\x31\xd2\x0f\x05",
        b"\x85\xc0\x78\x15",
        b"\x89\xc7\xb8\x2a\0\0\0\x48\x8d\x35\x12\0\0\0\xba\x10\0\0\0\x0f\x05",
        b"\xf7\xd8\x89\xc7",
        b"\xb8\x3c\0\0\0",
        b"\x0f\x05",
    ];
    let mut body = code.concat();
    // struct sockaddr_vm
    body.extend([40, 0, 0, 0]);
    body.extend(port.to_le_bytes());
    body.extend(cid.to_le_bytes());
    body.extend([0; 4]);
    let size = HEADERS + body.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend((BASE + HEADERS).to_le_bytes());
    elf.extend(64_u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment, to be read and executed.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for value in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(body);
    elf
}
