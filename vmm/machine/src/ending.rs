//! How a machine comes to its end: from what was seen at a vCPU to an [`Ending`] with its details.

use dewar_vmm_api::Ending;

/// What Linux prints first when it panics.
const PANIC_MARK: &[u8] = b"Kernel panic";

/// What ended the machine, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The guest wrote the power-off value to the exit port.
    PowerOffPort,
    /// The guest pulsed the reset line of the keyboard controller.
    ResetLine,
    /// `KVM_EXIT_SHUTDOWN`
    TripleFault,
    /// `KVM_EXIT_INTERNAL_ERROR`, with the place where it happened.
    Internal { suberror: u32, data: Vec<u64>, rip: Option<u64> },
    /// `KVM_EXIT_FAIL_ENTRY`
    FailEntry { reason: u64, cpu: u32 },
    /// An exit that this machine never asks for.
    Unexpected { exit: String },
    /// `KVM_RUN` itself failed.
    RunFailed { errno: i32 },
    /// Asked for from outside.
    Stopped,
}

/// An ending and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub ending: Ending,
    pub detail: Option<String>,
}

impl Outcome {
    /// Classifies `cause`; `console` is what the guest printed last.
    #[must_use]
    pub fn new(cause: &Cause, console: &[u8]) -> Self {
        let (ending, detail) = match cause {
            Cause::PowerOffPort => (Ending::PowerOff, None),
            Cause::ResetLine if panicked(console) => (Ending::Panic, None),
            Cause::ResetLine => (Ending::Reset, None),
            Cause::TripleFault => (Ending::TripleFault, None),
            Cause::Internal { suberror, data, rip } => {
                (Ending::InternalError, Some(internal_detail(*suberror, data, *rip)))
            }
            Cause::FailEntry { reason, cpu } => (
                Ending::InternalError,
                Some(format!("entering the guest failed on CPU {cpu}, hardware reason {reason:#x}")),
            ),
            Cause::Unexpected { exit } => (Ending::InternalError, Some(format!("unexpected exit {exit}"))),
            Cause::RunFailed { errno } => {
                (Ending::InternalError, Some(format!("KVM_RUN failed: {}", std::io::Error::from_raw_os_error(*errno))))
            }
            Cause::Stopped => (Ending::Stopped, None),
        };
        Self { ending, detail }
    }

    /// One sentence for stderr.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.ending.reason()),
            None => self.ending.reason().to_owned(),
        }
    }
}

fn panicked(console: &[u8]) -> bool {
    console.windows(PANIC_MARK.len()).any(|window| window == PANIC_MARK)
}

fn internal_detail(suberror: u32, data: &[u64], rip: Option<u64>) -> String {
    let what = match suberror {
        1 => "an instruction that KVM cannot emulate",
        2 => "two simultaneous exceptions",
        3 => "an exception while delivering an event",
        4 => "an unexpected exit reason",
        _ => "an unknown error",
    };
    let place = rip.map(|rip| format!(" at rip {rip:#x}")).unwrap_or_default();
    format!("{what} (suberror {suberror}){place}, data {data:x?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_after_a_panic_message_is_a_panic() {
        let console = b"boot\n[ 0.1] Kernel panic - not syncing: no init\n";
        assert_eq!(Outcome::new(&Cause::ResetLine, console).ending, Ending::Panic);
        assert_eq!(Outcome::new(&Cause::ResetLine, b"reboot: Restarting system").ending, Ending::Reset);
        assert_eq!(Outcome::new(&Cause::PowerOffPort, console).ending, Ending::PowerOff);
    }

    #[test]
    fn every_cause_has_its_ending() {
        let cases = [
            (Cause::TripleFault, Ending::TripleFault),
            (Cause::Internal { suberror: 1, data: vec![], rip: None }, Ending::InternalError),
            (Cause::FailEntry { reason: 1, cpu: 0 }, Ending::InternalError),
            (Cause::Unexpected { exit: "Hlt".into() }, Ending::InternalError),
            (Cause::RunFailed { errno: libc::EFAULT }, Ending::InternalError),
            (Cause::Stopped, Ending::Stopped),
        ];
        for (cause, ending) in cases {
            assert_eq!(Outcome::new(&cause, b"").ending, ending);
        }
    }

    #[test]
    fn internal_errors_say_what_and_where() {
        let cause = Cause::Internal { suberror: 1, data: vec![0x10], rip: Some(0xffff) };
        let sentence = Outcome::new(&cause, b"").sentence();
        assert!(sentence.contains("cannot emulate (suberror 1) at rip 0xffff, data [10]"), "{sentence}");
    }
}
