//! The device status field: every step that a driver may take, and no other. Section 2.1 and 3.1.1.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};

pub const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
pub const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
pub const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
pub const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
pub const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
pub const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// The status that the driver has reached.
///
/// ```text
///  0 ──▶ ACKNOWLEDGE ──▶ +DRIVER ──▶ +FEATURES_OK ──▶ +DRIVER_OK
///  ▲          │             │             │               │
///  │          └─────────────┴── +FAILED ──┴───────────────┤
///  └────────────────── write of 0, from anywhere ─────────┘
/// ```
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    bits: u32,
}

/// What a write to the status field asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The driver wrote 0.
    Reset,
    /// Nothing changed.
    Same,
    Acknowledge,
    Driver,
    /// To be granted by [`Status::grant`] if the features are acceptable.
    FeaturesOk,
    /// To be granted by [`Status::grant`]; the device starts.
    DriverOk,
    /// The driver has given up.
    Failed,
}

/// A write that no driver may do: a bit taken back, or a step left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The driver wrote device status {to:#x} in status {from:#x}")]
pub struct IllegalStep {
    pub from: u32,
    pub to: u32,
}

impl Status {
    #[must_use]
    pub fn bits(self) -> u32 {
        self.bits
    }

    #[must_use]
    pub fn has(self, bit: u32) -> bool {
        self.bits & bit != 0
    }

    /// Whether the driver may choose features now.
    #[must_use]
    pub fn features_open(self) -> bool {
        self.has(DRIVER) && !self.has(FEATURES_OK | FAILED)
    }

    /// Whether the driver may set up queues now.
    #[must_use]
    pub fn queues_open(self) -> bool {
        self.has(FEATURES_OK) && !self.has(DRIVER_OK | FAILED)
    }

    /// Decides what writing `value` means, and changes nothing.
    pub fn step(self, value: u32) -> Result<Step, IllegalStep> {
        let illegal = IllegalStep { from: self.bits, to: value };
        if value == 0 {
            return Ok(Step::Reset);
        }
        // NEEDS_RESET is the device's: drivers write back what they have read, with or without it.
        let value = value & !NEEDS_RESET;
        if value == self.bits {
            return Ok(Step::Same);
        }
        if self.has(FAILED) || value & self.bits != self.bits {
            return Err(illegal);
        }
        let added = value & !self.bits;
        if added & FAILED != 0 {
            return Ok(Step::Failed);
        }
        match (self.bits, added) {
            (0, ACKNOWLEDGE) => Ok(Step::Acknowledge),
            (ACKNOWLEDGE, DRIVER) => Ok(Step::Driver),
            (bits, FEATURES_OK) if bits == ACKNOWLEDGE | DRIVER => Ok(Step::FeaturesOk),
            (bits, DRIVER_OK) if bits == ACKNOWLEDGE | DRIVER | FEATURES_OK => Ok(Step::DriverOk),
            _ => Err(illegal),
        }
    }

    /// Carries out a step that [`Status::step`] has found to be legal.
    pub fn grant(&mut self, step: Step) {
        match step {
            Step::Reset => self.bits = 0,
            Step::Same => {}
            Step::Acknowledge => self.bits |= ACKNOWLEDGE,
            Step::Driver => self.bits |= DRIVER,
            Step::FeaturesOk => self.bits |= FEATURES_OK,
            Step::DriverOk => self.bits |= DRIVER_OK,
            Step::Failed => self.bits |= FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [u32; 5] = [
        0,
        ACKNOWLEDGE,
        ACKNOWLEDGE | DRIVER,
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    ];

    #[test]
    fn a_driver_reaches_driver_ok_step_by_step() {
        let mut status = Status::default();
        for (stage, step) in STAGES[1..].iter().zip([Step::Acknowledge, Step::Driver, Step::FeaturesOk, Step::DriverOk])
        {
            assert_eq!(status.step(*stage), Ok(step));
            status.grant(step);
            assert_eq!(status.bits(), *stage);
        }
    }

    #[test]
    fn every_write_in_every_stage_is_the_next_step_a_failure_a_reset_or_illegal() {
        for (at, from) in STAGES.into_iter().enumerate() {
            for value in 0..=0xff {
                check(from, STAGES.get(at + 1).copied(), value);
                check(from | FAILED, None, value);
            }
        }
    }

    fn check(bits: u32, next: Option<u32>, value: u32) {
        let written = value & !NEEDS_RESET;
        let result = Status { bits }.step(value);
        if value == 0 {
            assert_eq!(result, Ok(Step::Reset));
        } else if written == bits {
            assert_eq!(result, Ok(Step::Same));
        } else if bits & FAILED == 0 && written & bits == bits && written & FAILED != 0 {
            assert_eq!(result, Ok(Step::Failed));
        } else if next == Some(written) {
            assert!(result.is_ok());
        } else {
            assert_eq!(result, Err(IllegalStep { from: bits, to: value }));
        }
    }

    #[test]
    fn features_and_queues_are_open_in_one_stage_each() {
        let features: Vec<bool> = STAGES.map(|bits| Status { bits }.features_open()).to_vec();
        let queues: Vec<bool> = STAGES.map(|bits| Status { bits }.queues_open()).to_vec();
        assert_eq!(features, [false, false, true, false, false]);
        assert_eq!(queues, [false, false, false, true, false]);
        assert!(!Status { bits: STAGES[2] | FAILED }.features_open());
        assert!(!Status { bits: STAGES[3] | FAILED }.queues_open());
    }
}
