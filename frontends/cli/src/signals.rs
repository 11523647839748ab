//! Signals as values: blocked in every thread, and taken by one that waits for them.

use std::io;
use std::mem::MaybeUninit;

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
