//! Many bytes pass through a container's input and output and arrive intact: a gibibyte with KVM on hardware
//! (`DEWAR_CASES_FULL`), less where each byte is emulated.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

use crate::{Host, Outcome};

const CHUNK: usize = 1 << 20;

pub fn run(host: &Host) -> Result<Outcome> {
    let chunks = if std::env::var_os("DEWAR_CASES_FULL").is_some() { 1024 } else { 64 };
    let mut child = host.dewar(&["run", "--rm", "-i", "busybox", "cat"]).spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let mut stdout = child.stdout.take().context("no stdout")?;
    let writer = std::thread::spawn(move || (0..chunks).try_for_each(|i| stdin.write_all(&chunk(i))));
    let mut buffer = vec![0; CHUNK];
    for i in 0..chunks {
        stdout.read_exact(&mut buffer).with_context(|| format!("the output ends within chunk {i}"))?;
        ensure!(buffer == chunk(i), "chunk {i} arrived damaged");
    }
    ensure!(stdout.read(&mut buffer)? == 0, "more came out than went in");
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(child.wait()?.success());
    Ok(Outcome::Passed)
}

/// Bytes that differ from chunk to chunk and within each.
fn chunk(index: u64) -> Vec<u8> {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
