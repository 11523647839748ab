//! Containers that say that they are ready, and the calls that wait for it.

use std::collections::BTreeMap;

use dewar_protocol::Reply;
use rustix::event::epoll::EventFlags;

use super::{
    Server,
    calls::Answer,
    poller::Token,
    processes::{Container, Process},
};
use crate::{
    container::notify::Notify,
    error::{Doing, Result},
};

impl Server {
    /// Answers when the container says that it is ready, or has ended.
    pub(super) fn await_ready(&mut self, call: u64, id: &str) -> Result<Answer> {
        let init = self.container(id)?.init;
        let ended = self.processes.get(&init).is_none_or(Process::has_ended);
        match self.notify_of(init) {
            Some(notify) if notify.is_ready() => Ok(Answer::Now(Reply::Ready)),
            Some(notify) if !ended => {
                notify.waiters.push(call);
                Ok(Answer::Later)
            }
            _ => Ok(Answer::Now(Reply::Done)),
        }
    }

    /// Begins to listen to a container, by the number of its init.
    pub(super) fn watch_notify(&mut self, init: u64) -> Result<()> {
        let Some(notify) = of_init(&self.containers, init) else { return Ok(()) };
        let watched = self.poller.watch(notify.socket(), Token::Notify(init), EventFlags::IN);
        watched.doing(|| "Watching the container's notify socket failed".into())
    }

    pub(super) fn read_notify(&mut self, init: u64) {
        let Some(notify) = self.notify_of(init) else { return };
        let more = notify.read();
        let waiters = if notify.is_ready() { std::mem::take(&mut notify.waiters) } else { Vec::new() };
        for call in waiters {
            self.reply(call, Ok(Reply::Ready));
        }
        if more && let Some(notify) = of_init(&self.containers, init) {
            // Events tell of changes: what is left is to be told again. Where that fails, it is with the next message.
            let _ = self.poller.rewatch(notify.socket(), Token::Notify(init), EventFlags::IN);
        }
    }

    /// The container's init has ended: what it has not said it will not say.
    pub(super) fn end_notify(&mut self, init: u64) {
        self.read_notify(init);
        let waiters = self.notify_of(init).map(|notify| std::mem::take(&mut notify.waiters)).unwrap_or_default();
        for call in waiters {
            self.reply(call, Ok(Reply::Done));
        }
    }

    fn notify_of(&mut self, init: u64) -> Option<&mut Notify> {
        self.containers.values_mut().find(|container| container.init == init)?.notify.as_mut()
    }
}

/// The socket of the container whose init has this number.
fn of_init(containers: &BTreeMap<String, Container>, init: u64) -> Option<&Notify> {
    containers.values().find(|container| container.init == init)?.notify.as_ref()
}
