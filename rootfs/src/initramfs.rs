//! The guest's first root file system: the agent as `/init`, a console, and the mount points it needs. No shell.

use std::io::{self, Write};

use crate::cpio::Archive;

/// Device number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// Writes an initramfs whose `/init` is the static executable `agent`.
pub fn write<W: Write>(agent: &[u8], out: W) -> io::Result<W> {
    let mut archive = Archive::new(out);
    for dir in ["dev", "proc", "run", "sys"] {
        archive.dir(dir, 0o755)?;
    }
    // The kernel opens it as PID 1's stdio before anything is mounted: without it a failing agent is mute.
    archive.char_device("dev/console", 0o600, CONSOLE)?;
    archive.file("init", 0o755, agent)?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_agent_once_and_the_same_bytes_every_time() {
        let agent = b"\x7fELF the agent".repeat(100);
        let first = write(&agent, Vec::new()).unwrap();
        assert_eq!(first, write(&agent, Vec::new()).unwrap());
        assert_eq!(first.windows(agent.len()).filter(|window| *window == agent).count(), 1);
    }
}
