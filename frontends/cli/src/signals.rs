//! Signals as values: blocked in every thread, and taken by one that waits for them.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Signals that are blocked in this process and taken with [`Signals::wait`].
#[derive(Clone, Copy)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks `signals` in this thread and in those it starts later: to be called before any other thread exists.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initializes the set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialized on the line above.
        let mut set = unsafe { set.assume_init() };
        for signal in signals {
            // SAFETY: the set is initialized, and a bad signal number is refused.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the set is initialized; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => Ok(Self { set }),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Waits for one of the signals.
    pub fn wait(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right types.
        match unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } {
            0 => Ok(signal),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// What tells the thread of [`Orderly`] that all went well.
const ENOUGH: i32 = libc::SIGUSR1;

/// What ends a command from outside.
const ENDINGS: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// While it lives, a signal that ends this process has something put in order before.
pub struct Orderly {
    waiter: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    before: libc::sigset_t,
}

impl Orderly {
    /// To be called before any other thread exists. `last` is what to do; nothing else is waited for then.
    pub fn begin(last: fn()) -> io::Result<Self> {
        let before = mask(libc::SIG_SETMASK, None)?;
        let endings = ENDINGS.into_iter().filter(|signal| !is_ignored(*signal));
        let signals = Signals::block(&endings.chain([ENOUGH]).collect::<Vec<_>>())?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let waiter = std::thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            // Another process may have sent the same.
            if signal == ENOUGH && told.load(Ordering::Acquire) {
                return;
            }
            last();
            // The default action, of which whoever waits for this process can tell the signal.
            if mask(libc::SIG_UNBLOCK, Some(&signals.set)).is_ok() {
                // SAFETY: raise takes a number.
                unsafe { libc::raise(signal) };
            }
        });
        Ok(Self { waiter: Some(waiter), over, before })
    }
}

impl Drop for Orderly {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(waiter) = self.waiter.take() {
            // SAFETY: the thread has not been joined, so its handle is good.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), ENOUGH) };
            // It does nothing that could panic.
            let _ = waiter.join();
        }
        // A mask that was in force before is valid.
        let _ = mask(libc::SIG_SETMASK, Some(&self.before));
    }
}

/// Changes this thread's mask; the answer is the one before.
fn mask(how: i32, set: Option<&libc::sigset_t>) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    let set = set.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set, if any, is initialized, and the old one has a place.
    match unsafe { libc::pthread_sigmask(how, set, before.as_mut_ptr()) } {
        // SAFETY: the call has filled it.
        0 => Ok(unsafe { before.assume_init() }),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Whether whoever started this process wanted it to go on, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and the answer has a place.
    let done = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zero bytes are valid, whether or not the call has filled it.
    let action = unsafe { action.assume_init() };
    done == 0 && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_waited_for() {
        // In a thread of its own, whose mask ends with it; the signal is sent to that thread alone.
        let waiter = std::thread::spawn(|| {
            let signals = Signals::block(&[libc::SIGUSR2]).expect("blocks");
            // SAFETY: raise takes a number; the signal is blocked.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
            signals.wait().expect("waits")
        });
        assert_eq!(waiter.join().expect("ends"), libc::SIGUSR2);
        assert!(Signals::block(&[4096]).is_err());
    }
}
