//! The user's terminal: raw mode, its size, and the keys that detach.
//!
//! Whatever ends this process, the terminal must be as it was: [`restore`] may be called from any thread any number of
//! times, and is called on the ordinary way out, by the thread that takes the signals, and on a panic.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use dewar_protocol::WindowSize;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Settings to go back to.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Keys pass through uninterpreted from now on.
pub fn make_raw() -> io::Result<()> {
    static HOOK: Once = Once::new();
    let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.is_some() {
        return Ok(());
    }
    let original = tcgetattr(stdin())?;
    let mut raw = original.clone();
    raw.make_raw();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
    tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
    *saved = Some(original);
    Ok(())
}

/// Undoes [`make_raw`].
pub fn restore() {
    if let Some(original) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The terminal may be gone; nothing is left to put right then.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &original);
    }
}

pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal that this process is connected to.
pub fn size() -> Option<WindowSize> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).or_else(|_| tcgetwinsize(stderr())).ok()?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Which keys detach, and how far they have been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// Docker's notation: `ctrl-p,ctrl-q`, `a,ctrl-x`; empty for none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = text.split(',').filter(|_| !text.is_empty()).map(|key| {
            key_code(key)
                .ok_or_else(|| format!("unknown key {key:?}: give a character, or ctrl- and one of a-z@[\\]^_"))
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, typed: 0 })
    }

    /// What of `input` is to be passed on, and whether the keys are complete. Keys that may yet be the beginning of the
    /// whole sequence are held back.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len() + self.typed);
        for byte in input {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            self.mismatch(*byte, &mut passed);
        }
        (passed, false)
    }

    /// The held keys and this one are not the sequence; but a later part of them may begin it.
    fn mismatch(&mut self, byte: u8, passed: &mut Vec<u8>) {
        let held: Vec<u8> = self.keys.iter().take(self.typed).copied().chain([byte]).collect();
        let kept = (1..=held.len()).find(|start| self.keys.starts_with(held.get(*start..).unwrap_or_default()));
        let (release, keep) = held.split_at(kept.unwrap_or(held.len()));
        passed.extend_from_slice(release);
        self.typed = keep.len();
    }
}

fn key_code(key: &str) -> Option<u8> {
    let mut characters = key.strip_prefix("ctrl-").unwrap_or(key).chars();
    let (character, rest) = (characters.next()?, characters.next());
    let byte = u8::try_from(character).ok().filter(u8::is_ascii)?;
    if rest.is_some() {
        return None;
    }
    if !key.starts_with("ctrl-") {
        return Some(byte);
    }
    let upper = byte.to_ascii_uppercase();
    (b'@'..=b'_').contains(&upper).then(|| upper - b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, inputs: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).expect("valid");
        let mut all = Vec::new();
        for input in inputs {
            let (passed, complete) = keys.filter(input);
            all.extend(passed);
            if complete {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn the_sequence_detaches_however_it_arrives_and_is_not_passed_on() {
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed("x", &[b"abx"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn a_broken_sequence_is_passed_on_whole() {
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(typed("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(typed("a,b,a,c", &[b"ababac"]), (b"ab".to_vec(), true));
        assert_eq!(typed("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn keys_in_docker_s_notation() {
        assert_eq!(DetachKeys::parse("ctrl-a,Z,ctrl-@,ctrl-_,ctrl-[").expect("valid").keys, [1, b'Z', 0, 31, 27]);
        for text in ["ctrl-", "ab", "ctrl-1", "a,,b", "é", "ctrl-ab"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
