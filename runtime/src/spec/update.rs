//! Changes of a container's limits: docker's `update`.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{SpecError, parse, resources};

const QUOTA_LEAST: i64 = 1000;
const PERIODS: std::ops::RangeInclusive<u64> = 1000..=1_000_000;
const BLKIO_WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Docker's `update` options. What is `None`, and what docker takes for that (0 and the empty list, but for processes),
/// stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateOptions {
    /// Bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes; -1: no limit.
    pub memory_swap: Option<i64>,
    /// Bytes that are taken back last.
    pub memory_reservation: Option<u64>,
    /// Billionths of a CPU; not beside a quota or period.
    pub nano_cpus: Option<u64>,
    /// Microseconds in each period; -1: no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// 0 and -1: no limit.
    pub pids_limit: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
}

impl UpdateOptions {
    /// Whether nothing is to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What changes in `linux.resources`, which is `now` so far. Values that only make sense together (memory with swap,
    /// quota with period) come together.
    ///
    /// # Errors
    /// Any [`SpecError`] about a value that makes no sense, alone or beside what is in force.
    pub fn changes(&self, now: &LinuxResources) -> Result<LinuxResources, SpecError> {
        let mut changes = LinuxResources::default();
        changes
            .set_devices(None)
            .set_memory(self.memory(now.memory().as_ref())?)
            .set_cpu(self.cpu(now.cpu().as_ref())?);
        if let Some(limit) = self.pids_limit {
            let mut pids = LinuxPids::default();
            pids.set_limit(if limit <= 0 { -1 } else { limit });
            changes.set_pids(Some(pids));
        }
        if let Some(weight) = self.blkio_weight.filter(|w| *w != 0) {
            if !BLKIO_WEIGHTS.contains(&weight) {
                return Err(SpecError::BlkioWeight);
            }
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            changes.set_block_io(Some(block_io));
        }
        Ok(changes)
    }

    fn memory(&self, now: Option<&LinuxMemory>) -> Result<Option<LinuxMemory>, SpecError> {
        let asked = self.memory.filter(|m| *m != 0).map(|m| i64::try_from(m).unwrap_or(i64::MAX));
        let asked_swap = self.memory_swap.filter(|s| *s != 0);
        let reservation = self.memory_reservation.filter(|r| *r != 0).map(|r| i64::try_from(r).unwrap_or(i64::MAX));
        if asked.is_none() && asked_swap.is_none() && reservation.is_none() {
            return Ok(None);
        }
        if asked.is_some_and(|limit| limit < resources::MEMORY_LEAST.cast_signed()) {
            return Err(SpecError::MemoryTooSmall);
        }
        let limit = asked.or_else(|| now.and_then(LinuxMemory::limit)).filter(|l| *l > 0);
        let old_swap = now.and_then(LinuxMemory::swap).filter(|s| *s != 0);
        let swap = match (limit, asked_swap, old_swap) {
            (None, Some(1..), _) => return Err(SpecError::SwapWithoutMemory),
            (Some(limit), Some(swap @ 1..), _) if swap < limit => return Err(SpecError::SwapBelowMemory),
            (Some(limit), None, Some(swap @ 1..)) if swap < limit => return Err(SpecError::SwapHoldsMemory),
            (Some(limit), None, None) => Some(limit.saturating_mul(2)),
            (_, asked, old) => asked.or(old),
        };
        if let (Some(limit), Some(reservation)) = (limit, reservation)
            && reservation > limit
        {
            return Err(SpecError::ReservationAboveMemory);
        }
        let mut memory = LinuxMemory::default();
        memory.set_limit(limit).set_swap(swap).set_reservation(reservation);
        Ok(Some(memory))
    }

    fn cpu(&self, now: Option<&LinuxCpu>) -> Result<Option<LinuxCpu>, SpecError> {
        let mut cpu = LinuxCpu::default();
        let quota = self.cpu_quota.filter(|q| *q != 0);
        let period = self.cpu_period.filter(|p| *p != 0);
        if let Some(nano_cpus) = self.nano_cpus.filter(|c| *c != 0) {
            let (quota, period) = resources::quota_of(nano_cpus)?;
            cpu.set_quota(Some(quota)).set_period(Some(period));
        } else if quota.is_some() || period.is_some() {
            if quota.is_some_and(|q| q != -1 && q < QUOTA_LEAST) {
                return Err(SpecError::CpuQuota);
            }
            if period.is_some_and(|p| !PERIODS.contains(&p)) {
                return Err(SpecError::CpuPeriod);
            }
            cpu.set_quota(quota.or_else(|| now.and_then(LinuxCpu::quota)))
                .set_period(period.or_else(|| now.and_then(LinuxCpu::period)));
        }
        cpu.set_shares(self.cpu_shares.and_then(resources::shares));
        if let Some(cpus) = self.cpuset_cpus.as_ref().filter(|c| !c.is_empty()) {
            resources::check_cpuset(cpus)?;
            cpu.set_cpus(Some(cpus.clone()));
        }
        if let Some(nodes) = self.cpuset_mems.as_ref().filter(|m| !m.is_empty()) {
            // A machine has one memory node.
            if parse::cpuset(nodes)? > 1 {
                return Err(SpecError::CpusetMems { text: nodes.clone() });
            }
            cpu.set_mems(Some(nodes.clone()));
        }
        Ok((cpu != LinuxCpu::default()).then_some(cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn now(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("parses")
    }

    fn changes(options: &UpdateOptions, json: &str) -> Result<String, String> {
        let changes = options.changes(&now(json)).map_err(|e| e.to_string())?;
        Ok(serde_json::to_string(&changes).expect("encodes"))
    }

    #[test]
    fn only_what_was_asked_for_changes() {
        assert!(UpdateOptions::default().is_empty());
        assert_eq!(changes(&UpdateOptions::default(), r#"{"pids":{"limit":5}}"#).as_deref(), Ok("{}"));
        let zeros = UpdateOptions {
            memory: Some(0),
            memory_swap: Some(0),
            cpu_shares: Some(0),
            cpu_quota: Some(0),
            cpuset_cpus: Some(String::new()),
            ..UpdateOptions::default()
        };
        assert_eq!(changes(&zeros, r#"{"memory":{"limit":5}}"#).as_deref(), Ok("{}"));
        let pids = |limit| UpdateOptions { pids_limit: Some(limit), ..UpdateOptions::default() };
        assert_eq!(changes(&pids(7), "{}").as_deref(), Ok(r#"{"pids":{"limit":7}}"#));
        assert_eq!(changes(&pids(0), "{}").as_deref(), Ok(r#"{"pids":{"limit":-1}}"#));
    }

    #[test]
    fn memory_keeps_company_with_swap() {
        let memory = |memory: u64, swap: i64, json: &str| {
            let (memory, memory_swap) = (Some(memory * M), Some(swap));
            let options = UpdateOptions { memory, memory_swap, ..UpdateOptions::default() };
            let changes = options.changes(&now(json)).map_err(|e| e.to_string())?;
            let memory = changes.memory().expect("changes");
            Ok::<_, String>((memory.limit().map(|l| l >> 20), memory.swap().map(|s| if s < 0 { s } else { s >> 20 })))
        };
        let set = r#"{"memory":{"limit":67108864,"swap":134217728}}"#;
        assert_eq!(memory(100, 0, set), Ok((Some(100), Some(128))));
        assert_eq!(memory(100, 0, "{}"), Ok((Some(100), Some(200))));
        assert_eq!(memory(0, -1, set), Ok((Some(64), Some(-1))));
        assert_eq!(memory(200, 0, set).expect_err("above swap"), SpecError::SwapHoldsMemory.to_string());
        assert_eq!(memory(200, 100 << 20, set).expect_err("below"), SpecError::SwapBelowMemory.to_string());
        assert_eq!(memory(0, 100 << 20, "{}").expect_err("alone"), SpecError::SwapWithoutMemory.to_string());
        assert_eq!(memory(5, 0, set).expect_err("small"), SpecError::MemoryTooSmall.to_string());
        let reservation = UpdateOptions { memory_reservation: Some(65 * M), ..UpdateOptions::default() };
        assert!(changes(&reservation, set).expect_err("above").contains("memory reservation"));
        let reservation = UpdateOptions { memory_reservation: Some(M), ..UpdateOptions::default() };
        assert_eq!(changes(&reservation, "{}").as_deref(), Ok(r#"{"memory":{"reservation":1048576}}"#));
    }

    #[test]
    fn quota_and_period_come_together() {
        let set = r#"{"cpu":{"quota":50000,"period":100000}}"#;
        let options = UpdateOptions { cpu_period: Some(50_000), ..UpdateOptions::default() };
        assert_eq!(changes(&options, set).as_deref(), Ok(r#"{"cpu":{"quota":50000,"period":50000}}"#));
        let options = UpdateOptions { nano_cpus: Some(1_500_000_000), ..UpdateOptions::default() };
        assert_eq!(changes(&options, set).as_deref(), Ok(r#"{"cpu":{"quota":150000,"period":100000}}"#));
        for options in [
            UpdateOptions { cpu_quota: Some(999), ..UpdateOptions::default() },
            UpdateOptions { cpu_period: Some(999), ..UpdateOptions::default() },
            UpdateOptions { nano_cpus: Some(1), ..UpdateOptions::default() },
            UpdateOptions { cpuset_cpus: Some("0-32".into()), ..UpdateOptions::default() },
            UpdateOptions { cpuset_mems: Some("0-1".into()), ..UpdateOptions::default() },
            UpdateOptions { blkio_weight: Some(5), ..UpdateOptions::default() },
        ] {
            assert!(changes(&options, "{}").is_err(), "{options:?}");
        }
        let rest = UpdateOptions { cpu_shares: Some(1), cpuset_cpus: Some("0".into()), ..UpdateOptions::default() };
        assert_eq!(changes(&rest, set).as_deref(), Ok(r#"{"cpu":{"shares":2,"cpus":"0"}}"#));
    }
}
