//! The rate of this host's time-stamp counter, which an emulated guest sees as its own.

use std::time::{Duration, Instant};

/// Shortest time that gives a rate good to a thousandth: two readings are tens of nanoseconds apart from the clock's.
const SPAN: Duration = Duration::from_millis(1);

/// A measurement under way: other work fills its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct TscRate {
    began: (Instant, u64),
}

impl TscRate {
    pub(super) fn begin() -> Self {
        Self { began: reading() }
    }

    /// In kHz; `None` where there is no such counter, or one that stands or runs backwards.
    pub(super) fn khz(self) -> Option<u64> {
        let (began, from) = self.began;
        loop {
            let (now, to) = reading();
            let passed = now.duration_since(began);
            if passed >= SPAN {
                return rate(to.checked_sub(from)?, passed);
            }
            std::hint::spin_loop();
        }
    }
}

fn rate(ticks: u64, passed: Duration) -> Option<u64> {
    let khz = u128::from(ticks) * 1_000_000 / passed.as_nanos().max(1);
    // The kernel takes 32 bits. Less than 1 MHz is no counter to keep time with.
    u32::try_from(khz).ok().map(u64::from).filter(|khz| *khz >= 1000)
}

/// The two that lie closest together of a few, so that being interrupted between them does not count.
fn reading() -> (Instant, u64) {
    let once = || {
        let before = counter();
        let now = Instant::now();
        let after = counter();
        (after.wrapping_sub(before), now, before.wrapping_add(after.wrapping_sub(before) / 2))
    };
    let first = once();
    let (_, now, ticks) = (0..3).map(|_| once()).fold(first, |best, next| if next.0 < best.0 { next } else { best });
    (now, ticks)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Stands still, so that no rate comes of it.
#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_plausible_or_absent() {
        assert_eq!(rate(2_500_000, Duration::from_millis(1)), Some(2_500_000));
        assert_eq!(rate(0, Duration::from_millis(1)), None);
        assert_eq!(rate(u64::MAX, Duration::from_millis(1)), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree() {
        let khz = || TscRate::begin().khz().expect("a rate");
        // A hypervisor may trap the instruction, which then takes long; the rate stays the counter's.
        let (one, two) = (khz(), khz());
        assert!(one.abs_diff(two) * 50 < one, "{one} and {two} kHz");
    }
}
