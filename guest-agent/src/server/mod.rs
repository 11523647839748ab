//! The agent at work: one thread, one event loop, nothing that blocks.
//!
//! [`calls`] answers the host, [`processes`] follows processes from their fork to their end, [`streams`] and [`pump`]
//! carry their bytes, [`notify`] what they say of themselves, [`shutdown`] is the way out. One thread, because processes are
//! made by forking this one.

mod calls;
mod notify;
mod poller;
mod processes;
mod pump;
mod rpc;
mod shutdown;
mod streams;

pub use self::calls::uptime_ns;

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use dewar_protocol::{Call, Reply};
use rustix::{event::epoll::EventFlags, io::Errno};

use self::{
    poller::{Poller, Token},
    processes::{Container, Process},
    pump::{Progress, Pump},
    rpc::{Connection, RpcError},
    shutdown::Closing,
    streams::{Claim, Streams},
};
use crate::{
    container::{rootfs::Storage, sandbox::Sandbox, stdio::Direction},
    error::{Doing, Result},
    sys::{signal, vsock},
};

/// Through which the bytes of streams pass.
const SCRATCH: usize = 64 << 10;

/// What the event loop is made of. See the fields' types for who owns what.
pub struct Server {
    poller: Poller,
    rpc: Connection,
    listener: OwnedFd,
    signals: OwnedFd,
    streams: Streams,
    pumps: BTreeMap<u64, Pump>,
    /// Pumps that can go on without an event.
    ready: VecDeque<u64>,
    storage: Storage,
    sandbox: Sandbox,
    containers: BTreeMap<String, Container>,
    processes: BTreeMap<u64, Process>,
    /// The last number given to a process, a pump or a connection.
    last_number: u64,
    scratch: Vec<u8>,
    closing: Option<Closing>,
    /// Set when the connection to the host is of no more use.
    broken: Option<RpcError>,
}

impl Server {
    /// `rpc`: the connection after the handshake. SIGCHLD must be blocked and `listener` listen already.
    pub fn new(rpc: OwnedFd, listener: OwnedFd) -> Result<Self> {
        let failed = || "Setting up the event loop failed".to_owned();
        let signals = signal::descriptor(&[libc::SIGCHLD]).doing(failed)?;
        let poller = Poller::new().doing(failed)?;
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        poller.watch(&rpc, Token::Rpc, both).doing(failed)?;
        poller.watch(&listener, Token::Listener, EventFlags::IN).doing(failed)?;
        poller.watch(&signals, Token::Signals, EventFlags::IN).doing(failed)?;
        Ok(Self {
            poller,
            rpc: Connection::new(rpc),
            listener,
            signals,
            streams: Streams::default(),
            pumps: BTreeMap::new(),
            ready: VecDeque::new(),
            storage: Storage::default(),
            sandbox: Sandbox::default(),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_number: 0,
            scratch: vec![0; SCRATCH],
            closing: None,
            broken: None,
        })
    }

    /// Serves until the machine is to end.
    ///
    /// # Errors
    /// When the event queue or the connection to the host fails.
    pub fn run(mut self) -> Result<()> {
        loop {
            let timeout = if self.ready.is_empty() { self.closing_timeout() } else { Some(Duration::ZERO) };
            let events = self.poller.wait(timeout).doing(|| "Waiting for events failed".into())?;
            for (token, flags) in events {
                self.handle(token, flags);
            }
            for number in std::mem::take(&mut self.ready) {
                self.run_pump(number);
            }
            if let Some(error) = self.broken.take() {
                return match error {
                    RpcError::Closed => Ok(()),
                    other => Err(other).doing(|| "Serving the host failed".into()),
                };
            }
            if self.advance_shutdown() {
                shutdown::hang_up(self.rpc.into_socket());
                return Ok(());
            }
        }
    }

    fn handle(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Rpc => self.serve_host(),
            Token::Listener => self.accept_streams(),
            Token::Signals => self.reap(),
            Token::Handshake(number) => self.advance_handshake(number),
            Token::Report(number) => self.read_reports(number),
            Token::PumpSource(number) => self.run_pump(number),
            Token::Notify(number) => self.read_notify(number),
            Token::PumpTarget(number) => {
                let closing = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                let gone = |pump: &Pump| flags.intersects(closing) && pump.reader_is_gone();
                if self.pumps.get(&number).is_some_and(gone) {
                    self.pumps.remove(&number);
                } else {
                    self.run_pump(number);
                }
            }
        }
    }

    fn serve_host(&mut self) {
        let outcome = self.rpc.flush().and_then(|()| self.rpc.calls(&mut self.scratch));
        match outcome {
            Ok(calls) => {
                for Call { id, request } in calls {
                    self.answer(id, request);
                }
            }
            Err(e) => self.broken = Some(e),
        }
    }

    /// Sends a reply; a connection that fails is found out here and ends the loop.
    fn reply(&mut self, call: u64, result: Result<Reply>) {
        if let Err(e) = self.rpc.reply(call, result.map_err(Into::into)) {
            self.broken.get_or_insert(e);
        }
    }

    fn new_number(&mut self) -> u64 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    fn accept_streams(&mut self) {
        loop {
            let (socket, peer) = match vsock::accept(&self.listener) {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // A connection that was gone before it was accepted.
                Err(e) if e.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => continue,
                Err(_) => return,
            };
            // A workload can connect to the guest's own address; only the host opens streams.
            if peer != vsock::HOST_CID {
                continue;
            }
            let number = self.new_number();
            let watched = self.poller.watch(&socket, Token::Handshake(number), EventFlags::IN | EventFlags::RDHUP);
            if watched.is_ok() && self.streams.accept(number, socket) {
                self.advance_handshake(number);
            }
        }
    }

    fn advance_handshake(&mut self, number: u64) {
        if let Some((socket, claim)) = self.streams.advance(number) {
            self.connect(socket, claim);
        }
    }

    /// Asks for a process's stream.
    fn claim(&mut self, claim: Claim) {
        if let Some((socket, claim)) = self.streams.claim(claim) {
            self.connect(socket, claim);
        }
    }

    /// Sets bytes in motion between a connection and a process.
    fn connect(&mut self, socket: OwnedFd, claim: Claim) {
        let number = self.new_number();
        let mut pump = Pump::new(claim.end.direction, claim.owner, socket, claim.end.fd);
        if claim.ended {
            pump.end_source();
        }
        let (source, target) = (Token::PumpSource(number), Token::PumpTarget(number));
        let (reading, writing) = (EventFlags::IN | EventFlags::RDHUP, EventFlags::OUT | EventFlags::RDHUP);
        // The connection has been watched since it came, the process's side has not.
        let watched = match pump.direction {
            Direction::Input => self
                .poller
                .rewatch(pump.source().as_fd(), source, reading)
                .and_then(|()| self.poller.watch(pump.target().as_fd(), target, writing)),
            Direction::Output => self
                .poller
                .watch(pump.source().as_fd(), source, reading)
                .and_then(|()| self.poller.rewatch(pump.target().as_fd(), target, writing)),
        };
        if watched.is_ok() {
            self.pumps.insert(number, pump);
            self.run_pump(number);
        }
    }

    fn run_pump(&mut self, number: u64) {
        let Some(pump) = self.pumps.get_mut(&number) else { return };
        match pump.run(&mut self.scratch) {
            Progress::Blocked => {}
            Progress::More => {
                if !self.ready.contains(&number) {
                    self.ready.push_back(number);
                }
            }
            Progress::Finished => drop(self.pumps.remove(&number)),
        }
    }

    /// The process has ended: its outputs end with what it has written, its input takes no more.
    fn end_streams(&mut self, owner: u64) {
        for claim in self.streams.claims_of(owner) {
            claim.ended = true;
        }
        let mine: Vec<u64> =
            self.pumps.iter().filter(|(_, pump)| pump.owner == owner).map(|(number, _)| *number).collect();
        for number in mine {
            let Some(pump) = self.pumps.get_mut(&number) else { continue };
            if pump.direction == Direction::Input {
                self.pumps.remove(&number);
            } else {
                pump.end_source();
                self.run_pump(number);
            }
        }
    }

    /// Whether output is still on its way to the host.
    fn has_output(&self) -> bool {
        self.pumps.values().any(|pump| pump.direction == Direction::Output)
    }
}
