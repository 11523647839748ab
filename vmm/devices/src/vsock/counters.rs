//! What the device counts, readable from any thread.

use crate::counter::Counter;

/// Figures since the device was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections begun, by either side.
    pub connections: Counter,
    /// Packets that were answered with a reset, as they belonged to no connection or asked for none that is possible.
    pub resets: Counter,
    /// Packets dropped for a source that is not the guest or a destination that is not the host.
    pub misaddressed: Counter,
    /// Chains too short for what they claim or have to hold.
    pub malformed: Counter,
    /// Host programs and guest requests past the limit, and host programs that did not say what they want.
    pub turned_away: Counter,
    /// Host programs that could not be accepted at once.
    pub accept_failures: Counter,
}

impl Counters {
    /// All figures with their names.
    #[must_use]
    pub fn list(&self) -> [(&'static str, u64); 6] {
        [
            ("connections", self.connections.get()),
            ("resets", self.resets.get()),
            ("misaddressed", self.misaddressed.get()),
            ("malformed", self.malformed.get()),
            ("turned-away", self.turned_away.get()),
            ("accept-failures", self.accept_failures.get()),
        ]
    }
}
