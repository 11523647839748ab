//! The end of the machine, and the last words on its console.

use std::{fs::File, io::Write};

use dewar_protocol::{EXIT_IO_PORT, EXIT_POWER_OFF};
use rustix::{
    fs::sync,
    system::{RebootCommand, reboot},
};

use crate::{
    child,
    sys::{power, process},
};

/// Says one line on the console.
pub fn say(line: &str) {
    let text = format!("dewar-agent: {}\n", line.replace('\n', " "));
    let console = File::options().write(true).open("/dev/console");
    let said = console.and_then(|mut console| console.write_all(text.as_bytes()));
    if said.is_err() {
        // Without a console driver the kernel's log is what is left; nobody hears of a failure there.
        let log = File::options().write(true).open("/dev/kmsg");
        let _ = log.and_then(|mut log| log.write_all(text.as_bytes()));
    }
}

/// Ends the machine in an orderly way.
pub fn power_off() -> ! {
    sync();
    // On success this write is the machine's last instruction; without such a port the kernel ends it.
    let _ = power::out_byte(EXIT_IO_PORT, EXIT_POWER_OFF);
    let _ = reboot(RebootCommand::PowerOff);
    let _ = reboot(RebootCommand::Restart);
    process::exit_now(1)
}

/// A panic is a bug: it is said on the console, and the machine ends by a restart, which the host takes for the
/// failure it is. In a child it ends the child.
pub fn set_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        if child::in_child() {
            process::exit_now(125);
        }
        say(&panic.to_string());
        sync();
        let _ = reboot(RebootCommand::Restart);
        process::exit_now(1)
    }));
}
