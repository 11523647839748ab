//! How answers look: tables, templates, sizes and times.

pub mod progress;
pub mod table;
pub mod template;
pub mod units;

use std::io::{self, Write};

/// Writes a line to standard output. A reader that has gone away (`| head -1`) ends the program quietly.
pub fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output.
pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}
