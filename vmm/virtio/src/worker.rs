//! The one event loop that devices run in: a thread, an epoll, and a handler that owns the device's queues while the
//! device is active.
//!
//! Ownership moves to the thread at [`Worker::start`] and comes back at [`Worker::stop`]; nothing is shared, so a
//! handler needs no locks.

use std::{
    io,
    os::fd::AsRawFd,
    thread::{Builder, JoinHandle},
};

use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent},
    eventfd::{EFD_NONBLOCK, EventFd},
};

pub use vmm_sys_util::epoll::EventSet;

use crate::{device::BrokenFlag, queue::RingError};

/// The token that the worker keeps for itself.
const STOP: u64 = u64::MAX;

/// Events fetched at once.
const BATCH: usize = 32;

/// What runs in a worker.
pub trait Handler: Send + 'static {
    /// Registers the descriptors that the handler starts with. Called once, before the thread exists.
    fn register(&mut self, registry: &Registry) -> io::Result<()>;

    /// Something happened on the descriptor registered with `token`. Descriptors are level-triggered.
    ///
    /// Events are fetched in batches: one for a token that was removed while handling an earlier event of the same batch
    /// may still come, so tokens must not be given out again at once.
    ///
    /// An error ends the worker, and the device is reported as broken.
    fn ready(&mut self, token: u64, events: EventSet, registry: &Registry) -> Result<(), RingError>;
}

/// The descriptors that a worker waits for.
pub struct Registry {
    epoll: Epoll,
}

impl Registry {
    /// Waits for `events` on `fd`. The token must not be `u64::MAX`.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, events: EventSet) -> io::Result<()> {
        if token == STOP {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(events, token))
    }

    /// Waits for other `events` on `fd`, which was added with `token`.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, events: EventSet) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Modify, fd.as_raw_fd(), EpollEvent::new(events, token))
    }

    /// Waits no more for `fd`. To be called before it is closed if it has duplicates.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Delete, fd.as_raw_fd(), EpollEvent::default())
    }
}

/// A running handler. Dropped, it is stopped and joined.
pub struct Worker<H: Handler> {
    stop: EventFd,
    thread: Option<JoinHandle<H>>,
}

impl<H: Handler> Worker<H> {
    /// Registers the handler's descriptors and starts its thread. `name` is cut to 15 bytes by the kernel.
    pub fn start(name: &str, mut handler: H, broken: BrokenFlag) -> io::Result<Self> {
        let registry = Registry { epoll: Epoll::new()? };
        let stop = EventFd::new(EFD_NONBLOCK)?;
        registry.epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), EpollEvent::new(EventSet::IN, STOP))?;
        handler.register(&registry)?;
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            run(&mut handler, &registry, &broken);
            handler
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops the thread, waits for its end, and gives the handler back. `None` if the handler has panicked.
    pub fn stop(mut self) -> Option<H> {
        self.join()
    }

    fn join(&mut self) -> Option<H> {
        let thread = self.thread.take()?;
        // Fails only when the counter is full, and then the thread is about to stop.
        drop(self.stop.write(1));
        thread.join().ok()
    }
}

impl<H: Handler> Drop for Worker<H> {
    fn drop(&mut self) {
        drop(self.join());
    }
}

fn run(handler: &mut impl Handler, registry: &Registry, broken: &BrokenFlag) {
    let mut events = [EpollEvent::default(); BATCH];
    loop {
        let count = match registry.epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The arguments are right, so this cannot happen; without events the device is as good as broken.
            Err(_) => return broken.set(),
        };
        let batch = events.get(..count).unwrap_or_default();
        if batch.iter().any(|event| event.data() == STOP) {
            return;
        }
        for event in batch {
            if let Err(error) = handler.ready(event.data(), event.event_set(), registry) {
                return broken.set_because(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        sync::mpsc::{Receiver, Sender, channel},
    };

    use super::*;

    struct Echo {
        kick: EventFd,
        socket: Option<UnixStream>,
        seen: Sender<u64>,
        fail: bool,
        handled: usize,
    }

    impl Handler for Echo {
        fn register(&mut self, registry: &Registry) -> io::Result<()> {
            registry.add(&self.kick, 1, EventSet::IN)
        }

        fn ready(&mut self, token: u64, events: EventSet, registry: &Registry) -> Result<(), RingError> {
            assert!(events.contains(EventSet::IN));
            self.handled += 1;
            if token == 1 {
                self.kick.read().unwrap();
                if self.fail {
                    return Err(RingError::Order);
                }
                registry.add(self.socket.as_ref().unwrap(), 2, EventSet::IN).unwrap();
            } else {
                let mut socket = self.socket.take().unwrap();
                socket.read_exact(&mut [0]).unwrap();
                registry.remove(&socket).unwrap();
            }
            self.seen.send(token).unwrap();
            Ok(())
        }
    }

    fn echo(fail: bool) -> (Echo, EventFd, UnixStream, Receiver<u64>) {
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (seen, events) = channel();
        let handler = Echo { kick: kick.try_clone().unwrap(), socket: Some(theirs), seen, fail, handled: 0 };
        (handler, kick, ours, events)
    }

    #[test]
    fn a_handler_adds_descriptors_while_it_runs_and_comes_back_when_stopped() {
        let (handler, kick, mut socket, events) = echo(false);
        let worker = Worker::start("echo", handler, BrokenFlag::new(|| ())).unwrap();
        kick.write(1).unwrap();
        assert_eq!(events.recv(), Ok(1));
        socket.write_all(b"x").unwrap();
        assert_eq!(events.recv(), Ok(2));
        let handler = worker.stop().unwrap();
        assert_eq!(handler.handled, 2);
        assert!(handler.socket.is_none());
    }

    #[test]
    fn a_failing_handler_marks_the_device_as_broken() {
        let (handler, kick, _socket, _events) = echo(true);
        let (sender, broken) = channel();
        let sender = std::sync::Mutex::new(sender);
        let worker =
            Worker::start("echo", handler, BrokenFlag::new(move || sender.lock().unwrap().send(()).unwrap())).unwrap();
        kick.write(1).unwrap();
        assert_eq!(broken.recv(), Ok(()));
        assert_eq!(worker.stop().unwrap().handled, 1);
    }

    #[test]
    fn dropping_a_worker_ends_its_thread() {
        let (handler, _kick, _socket, events) = echo(false);
        drop(Worker::start("echo", handler, BrokenFlag::new(|| ())).unwrap());
        assert!(events.recv().is_err());
    }
}
