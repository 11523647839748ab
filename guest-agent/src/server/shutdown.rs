//! The way out: everything killed, output delivered, filesystems unmounted, and only then the reply.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use dewar_protocol::Reply;
use rustix::net::sockopt::set_socket_linger;

use super::Server;

/// How long a shutdown waits for processes to end and for the host to take their output.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last bytes may take to be acknowledged.
const LINGER: Duration = Duration::from_secs(1);

/// A shutdown that has begun.
pub struct Closing {
    call: u64,
    deadline: Instant,
    replied: bool,
}

impl Server {
    /// Begins: no process survives this.
    pub(super) fn begin_shutdown(&mut self, call: u64) {
        self.closing.get_or_insert(Closing { call, deadline: Instant::now() + PATIENCE, replied: false });
        for container in self.containers.values() {
            // Those that have ended have nothing left to kill.
            let _ = container.cgroup.kill();
        }
    }

    pub(super) fn closing_timeout(&self) -> Option<Duration> {
        self.closing.as_ref().map(|closing| closing.deadline.saturating_duration_since(Instant::now()))
    }

    /// Goes on with a shutdown as far as it can; whether the machine may end now.
    pub(super) fn advance_shutdown(&mut self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let late = Instant::now() >= closing.deadline;
        if closing.replied {
            return late || self.rpc.is_flushed();
        }
        let call = closing.call;
        if !late && (self.processes.values().any(|process| !process.has_ended()) || self.has_output()) {
            return false;
        }
        for (_, container) in std::mem::take(&mut self.containers) {
            container.rootfs.unmount(&mut self.storage.disks);
        }
        rustix::fs::sync();
        if let Some(closing) = &mut self.closing {
            closing.replied = true;
        }
        self.reply(call, Ok(Reply::Done));
        self.rpc.is_flushed()
    }
}

/// Closes the connection and waits until the device has acknowledged it: by then it has taken every byte that was sent
/// before, on any connection, since they share one queue.
pub fn hang_up(socket: OwnedFd) {
    // Without it the close does not wait, and the machine's end may be quicker than the last bytes.
    let _ = set_socket_linger(&socket, Some(LINGER));
    drop(socket);
}
