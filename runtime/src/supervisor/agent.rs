//! The host's end of the RPC connection to the guest's agent.
//!
//! Any thread may call; a reader thread hands each reply to the caller that waits for it. When the connection ends, all
//! callers get an error: the guest cannot leave one waiting by dying, only by staying silent.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dewar_protocol::{
    AgentError, Call, ErrorKind as GuestKind, ExitStatus, GuestMessage, ProcessRef, Reply, Request, encode,
};

use super::lock;
use crate::{Error, ErrorKind, ResultExt};

type Answer = Result<Reply, AgentError>;

#[derive(Debug)]
struct Calls {
    next: u64,
    /// `None` once the connection has ended.
    waiting: Option<HashMap<u64, Sender<Answer>>>,
}

#[derive(Debug)]
pub(crate) struct Agent {
    writer: Mutex<UnixStream>,
    calls: Arc<Mutex<Calls>>,
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Pending(Receiver<Answer>);

impl Pending {
    pub(crate) fn wait(self) -> Result<Reply, Error> {
        let answer = self.0.recv().map_err(|_| lost())?;
        answer.map_err(|e| Error::new(kind_of(e.kind), clean(&e.message)))
    }

    fn wait_for(self, seconds: u64) -> Result<Reply, Error> {
        let answer = self.0.recv_timeout(Duration::from_secs(seconds)).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::new(ErrorKind::Machine, "The guest does not answer"),
            RecvTimeoutError::Disconnected => lost(),
        })?;
        answer.map_err(|e| Error::new(kind_of(e.kind), clean(&e.message)))
    }
}

impl Agent {
    /// Takes over a connection whose greeting is done.
    pub(crate) fn new(socket: UnixStream) -> Result<Self, Error> {
        let calls = Arc::new(Mutex::new(Calls { next: 1, waiting: Some(HashMap::new()) }));
        let reader = socket.try_clone().context(|| "Cannot duplicate the agent's connection".into())?;
        let for_reader = Arc::clone(&calls);
        std::thread::Builder::new()
            .name("agent".into())
            .spawn(move || {
                read_replies(reader, &for_reader);
                lock(&for_reader).waiting = None;
            })
            .context(|| "Cannot start a thread".into())?;
        Ok(Self { writer: Mutex::new(socket), calls })
    }

    pub(crate) fn begin(&self, request: Request) -> Result<Pending, Error> {
        let (sender, receiver) = channel();
        let id = {
            let mut calls = lock(&self.calls);
            let id = calls.next;
            calls.next += 1;
            calls.waiting.as_mut().ok_or_else(lost)?.insert(id, sender);
            id
        };
        let bytes = encode(&Call { id, request }).context(|| "Cannot encode a request to the guest".into())?;
        lock(&self.writer).write_all(&bytes).map_err(|_| lost())?;
        Ok(Pending(receiver))
    }

    pub(crate) fn call(&self, request: Request) -> Result<Reply, Error> {
        self.begin(request)?.wait()
    }

    pub(crate) fn call_for(&self, request: Request, seconds: u64) -> Result<Reply, Error> {
        self.begin(request)?.wait_for(seconds)
    }

    /// Waits for the end of a process.
    pub(crate) fn wait_exit(&self, exec: Option<&str>, container: &str) -> Result<ExitStatus, Error> {
        let process = ProcessRef { container: container.into(), exec: exec.map(Into::into) };
        match self.call(Request::Wait { process })? {
            Reply::Exited(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }
}

pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::new(ErrorKind::Machine, format!("The guest gave an answer that does not fit: {reply:.100?}"))
}

fn lost() -> Error {
    Error::new(ErrorKind::Machine, "The connection to the guest is lost")
}

fn read_replies(mut socket: UnixStream, calls: &Mutex<Calls>) {
    loop {
        match dewar_protocol::read_frame::<GuestMessage>(&mut socket) {
            Ok(Some(GuestMessage::Reply { id, result })) => {
                let waiting = lock(calls).waiting.as_mut().and_then(|w| w.remove(&id));
                // A reply that nobody waits for is dropped: the guest may say what it likes.
                if let Some(sender) = waiting {
                    let _ = sender.send(result);
                }
            }
            Ok(None) => return,
            Err(error) => {
                eprintln!("dewar-supervisor: the agent's connection is damaged: {error}");
                return;
            }
        }
    }
}

fn kind_of(kind: GuestKind) -> ErrorKind {
    match kind {
        GuestKind::NotFound => ErrorKind::NotFound,
        GuestKind::Exists => ErrorKind::Conflict,
        GuestKind::State => ErrorKind::State,
        GuestKind::Invalid => ErrorKind::Invalid,
        GuestKind::CommandNotFound => ErrorKind::CommandNotFound,
        GuestKind::CommandNotExecutable => ErrorKind::CommandNotExecutable,
        GuestKind::Unsupported => ErrorKind::Unsupported,
        GuestKind::Internal => ErrorKind::Internal,
    }
}

/// A guest's sentence, made safe for a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dewar_protocol::{read_frame, write_frame};

    #[test]
    fn replies_find_their_callers_in_any_order_and_a_lost_connection_frees_them() {
        let (host, mut guest) = UnixStream::pair().expect("a pair");
        let agent = Agent::new(host).expect("starts");
        let first = agent.begin(Request::GuestInfo).expect("sends");
        let second = agent.begin(Request::Shutdown).expect("sends");
        let third = agent.begin(Request::Shutdown).expect("sends");
        let ids: Vec<u64> =
            (0..3).map(|_| read_frame::<Call>(&mut guest).expect("reads").expect("a call").id).collect();
        let error = AgentError { kind: GuestKind::State, message: "not\x1b now".into() };
        for (id, result) in [(999, Ok(Reply::Done)), (ids[1], Ok(Reply::Done)), (ids[0], Err(error))] {
            write_frame(&mut guest, &GuestMessage::Reply { id, result }).expect("writes");
        }
        assert!(matches!(second.wait(), Ok(Reply::Done)));
        let error = first.wait().expect_err("refused");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::State, "not now"));
        drop(guest);
        assert_eq!(third.wait().expect_err("lost").kind(), ErrorKind::Machine);
    }
}
