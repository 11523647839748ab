//! Lets vCPU threads run, holds them, and sends them home.
//!
//! A vCPU thread calls [`Gate::pass`] before it first enters the guest and after each interrupted `KVM_RUN`; whoever
//! changes the wish kicks the threads afterwards, so that each comes by. One lock, held for moments, never around
//! `KVM_RUN`.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    Leave,
}

#[derive(Debug)]
struct State {
    wish: Wish,
    /// Threads that are neither waiting in the gate nor gone.
    inside: usize,
}

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// For `threads` vCPU threads that have not passed yet.
    pub fn new(threads: usize) -> Self {
        Self { state: Mutex::new(State { wish: Wish::Run, inside: threads }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the machine is paused. `false`: the thread must end, and has been counted out.
    pub fn pass(&self) -> bool {
        let mut state = self.lock();
        if state.wish == Wish::Run {
            return true;
        }
        state.inside -= 1;
        self.changed.notify_all();
        let mut state =
            self.changed.wait_while(state, |state| state.wish == Wish::Pause).unwrap_or_else(PoisonError::into_inner);
        if state.wish == Wish::Leave {
            return false;
        }
        state.inside += 1;
        true
    }

    /// Counts out a thread that ends by itself.
    pub fn leave(&self) {
        self.lock().inside -= 1;
        self.changed.notify_all();
    }

    /// Asks for a pause; `kick` interrupts the threads; returns when none is inside.
    pub fn pause(&self, kick: impl FnOnce()) {
        let mut state = self.lock();
        if state.wish == Wish::Run {
            state.wish = Wish::Pause;
            drop(state);
            kick();
            state = self.lock();
        }
        drop(self.changed.wait_while(state, |state| state.inside > 0));
    }

    pub fn resume(&self) {
        let mut state = self.lock();
        if state.wish == Wish::Pause {
            state.wish = Wish::Run;
            self.changed.notify_all();
        }
    }

    /// Sends all threads home; `kick` interrupts them.
    pub fn dismiss(&self, kick: impl FnOnce()) {
        self.lock().wish = Wish::Leave;
        self.changed.notify_all();
        kick();
    }

    pub fn is_paused(&self) -> bool {
        self.lock().wish == Wish::Pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn pause_returns_when_every_thread_waits_and_resume_lets_them_go() {
        let gate = Gate::new(2);
        std::thread::scope(|scope| {
            let (kicks, kicked): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel::<()>()).unzip();
            let gate = &gate;
            let run_until_dismissed = |inbox: mpsc::Receiver<()>| {
                while gate.pass() {
                    inbox.recv().unwrap()
                }
            };
            for inbox in kicked {
                scope.spawn(move || run_until_dismissed(inbox));
            }
            // A thread that still waits in the gate when it is dismissed takes no kick any more.
            let kick = || kicks.iter().for_each(|k| k.send(()).unwrap_or_default());
            gate.pause(kick);
            assert!(gate.is_paused());
            assert_eq!(gate.lock().inside, 0);
            gate.pause(|| unreachable!("already paused"));
            gate.resume();
            assert!(!gate.is_paused());
            gate.dismiss(kick);
        });
        assert_eq!(gate.lock().inside, 0);
    }

    #[test]
    fn paused_threads_can_be_dismissed() {
        let gate = Gate::new(1);
        std::thread::scope(|scope| {
            gate.state.lock().unwrap().wish = Wish::Pause;
            let thread = scope.spawn(|| gate.pass());
            gate.pause(|| unreachable!("already asked for"));
            gate.dismiss(|| ());
            assert!(!thread.join().unwrap());
        });
    }
}
