//! Throughput: a container's disk next to the lab's, a container's output next to a unix socket. In the lab's plain time.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::report;
use crate::start::LIB;
use crate::stopwatch::{command, ms, now_ns, repeat, time};

const RUNS: usize = 5;
const MIB: usize = 128;
const PIECE: usize = 1 << 20;

pub fn measure() -> Result<()> {
    time(command("dewar load -q -i").arg(format!("{LIB}/busybox.tar")))?;
    time(&mut command("dewar run -d --name bench busybox sleep 1000000"))?;
    eprintln!("bench: disks");
    let write = |prefix: &str| {
        let line = format!("{prefix}busybox dd if=/dev/zero of=/bench.bin bs=1M count={MIB} conv=fsync");
        rate(time(command(&line).stderr(Stdio::null()))?)
    };
    let read = |prefix: &str| {
        // Past the page cache of whoever reads; the other side's cache is warm.
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
        let line = format!("{prefix}busybox dd if=/bench.bin of=/dev/null bs=1M iflag=direct");
        rate(time(command(&line).stderr(Stdio::null()))?)
    };
    for (name, prefix) in [("the lab's disk", ""), ("a container's disk", "dewar exec bench ")] {
        report(&format!("write to {name}"), "MiB/s", &repeat(RUNS, || write(prefix))?);
        report(&format!("read from {name}"), "MiB/s", &repeat(RUNS, || read(prefix))?);
    }
    eprintln!("bench: streams");
    report("a unix socket", "MiB/s", &repeat(RUNS, socket)?);
    report("a container's output", "MiB/s", &repeat(RUNS, output)?);
    time(&mut command("dewar rm -f bench")).map(drop)
}

#[expect(clippy::unnecessary_wraps, reason = "stands where a measurement can fail")]
fn rate(ms: f64) -> Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let mib = MIB as f64;
    Ok(mib / ms * 1e3)
}

fn socket() -> Result<f64> {
    let (mut from, mut to) = UnixStream::pair().context("cannot make a socket pair")?;
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let piece = vec![0; PIECE];
        (0..MIB).try_for_each(|_| to.write_all(&piece))
    });
    let began = now_ns();
    ensure!(drain(&mut from)? == MIB * PIECE, "a socket lost bytes");
    let ended = now_ns();
    writer.join().ok().context("a writer failed")??;
    rate(ms(began, ended))
}

/// From a process in the container through its vsock stream and the supervisor to a pipe here.
fn output() -> Result<f64> {
    let line = format!("dewar exec bench dd if=/dev/zero bs=1M count={MIB}");
    let began = now_ns();
    let mut child = command(&line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = File::from(std::os::fd::OwnedFd::from(child.stdout.take().context("no output")?));
    ensure!(drain(&mut output)? == MIB * PIECE, "a stream lost bytes");
    let ended = now_ns();
    ensure!(child.wait()?.success(), "{line} failed");
    rate(ms(began, ended))
}

fn drain(from: &mut impl Read) -> Result<usize> {
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        match from.read(&mut buffer).context("cannot read")? {
            0 => return Ok(total),
            n => total += n,
        }
    }
}
