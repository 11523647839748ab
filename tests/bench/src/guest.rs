//! The other side of a boot: an init that says that it runs, and ends the machine.

use std::io::Write;

use rustix::system::{RebootCommand, reboot};

/// What it says.
pub const MARK: &str = "dewar-bench: init runs";

/// As PID 1.
pub fn init() -> ! {
    // Its console may be missing; then the measuring side finds no mark and says so.
    let _ = writeln!(std::io::stdout(), "{MARK}");
    let _ = reboot(RebootCommand::Restart);
    // What is left is to panic the kernel, whose `panic=-1` resets the machine.
    std::process::exit(1)
}
