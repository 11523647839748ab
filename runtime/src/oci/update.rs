//! `update`: limits as runc's flags, or as JSON.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, ErrorKind, ResultExt};

/// runc's flags. What is not given stays as it is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct UpdateFlags {
    /// File with the resources as JSON (`-`: standard input); the other flags are of no effect then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Block IO weight, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// CPU CFS period in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU CFS quota in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU CFS burst in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// CPU shares, relative to other containers
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// CPU real-time period in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// CPU real-time runtime in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_runtime: Option<i64>,
    /// SCHED_IDLE for the whole group (1) or not (0)
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Obsolete: kernel memory has no limit of its own
    #[arg(long, value_name = "BYTES")]
    kernel_memory: Option<String>,
    /// Obsolete: kernel memory for TCP has no limit of its own
    #[arg(long, value_name = "BYTES")]
    kernel_memory_tcp: Option<String>,
    /// Memory limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is kept when memory is short
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Not supported: a guest has no resource director
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Not supported: a guest has no resource director
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

impl UpdateFlags {
    /// The limits that are to change.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what does not parse, [`ErrorKind::Unsupported`].
    pub fn resources(&self) -> Result<LinuxResources, Error> {
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "--l3-cache-schema and --mem-bw-schema are not supported: a guest has no resource director",
            ));
        }
        let value = match &self.resources {
            Some(path) => read(path)?,
            None => self.value()?,
        };
        serde_json::from_value(value).kind(ErrorKind::Invalid, || "the resources do not parse".into())
    }

    fn value(&self) -> Result<Value, Error> {
        let cpu = section([
            ("period", self.cpu_period.map(|n| json!(n))),
            ("quota", self.cpu_quota.map(|n| json!(n))),
            ("burst", self.cpu_burst.map(|n| json!(n))),
            ("shares", self.cpu_share.map(|n| json!(n))),
            ("realtimePeriod", self.cpu_rt_period.map(|n| json!(n))),
            ("realtimeRuntime", self.cpu_rt_runtime.map(|n| json!(n))),
            ("idle", self.cpu_idle.map(|n| json!(n))),
            ("cpus", self.cpuset_cpus.as_ref().map(|text| json!(text))),
            ("mems", self.cpuset_mems.as_ref().map(|text| json!(text))),
        ]);
        let memory = section([
            ("limit", bytes(self.memory.as_deref())?),
            ("reservation", bytes(self.memory_reservation.as_deref())?),
            ("swap", bytes(self.memory_swap.as_deref())?),
            ("kernel", bytes(self.kernel_memory.as_deref())?),
            ("kernelTCP", bytes(self.kernel_memory_tcp.as_deref())?),
        ]);
        let block = section([("weight", self.blkio_weight.map(|n| json!(n)))]);
        let pids = section([("limit", self.pids_limit.map(|n| json!(n)))]);
        let all = section([("cpu", cpu), ("memory", memory), ("blockIO", block), ("pids", pids)]);
        Ok(all.unwrap_or_else(|| json!({})))
    }
}

/// An object of what is there; `None` when nothing is.
fn section<const N: usize>(fields: [(&str, Option<Value>); N]) -> Option<Value> {
    let object: Map<String, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

fn bytes(text: Option<&str>) -> Result<Option<Value>, Error> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("invalid size {text:?}: give bytes, or a number with k, m or g");
    crate::spec::parse::swap_size(text).map(|n| Some(json!(n))).kind(ErrorKind::Invalid, wrong)
}

fn read(path: &Path) -> Result<Value, Error> {
    let name = path.display();
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).context(|| "Cannot read standard input".into())?;
    } else {
        text = std::fs::read(path).kind(ErrorKind::Invalid, || format!("Cannot read {name}"))?;
    }
    serde_json::from_slice(&text).kind(ErrorKind::Invalid, || format!("{name} does not parse"))
}

/// The share of the processors as it was set last: it consists of two numbers, and runc's flags change one alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    quota: Option<i64>,
    period: Option<u64>,
}

impl Bandwidth {
    pub(super) fn of(resources: Option<&LinuxResources>) -> Self {
        let mut bandwidth = Self::default();
        bandwidth.take(resources.and_then(|resources| resources.cpu().as_ref()));
        bandwidth
    }

    fn take(&mut self, cpu: Option<&LinuxCpu>) {
        self.quota = cpu.and_then(LinuxCpu::quota).filter(|quota| *quota != 0).or(self.quota);
        self.period = cpu.and_then(LinuxCpu::period).filter(|period| *period != 0).or(self.period);
    }

    /// Takes what is asked for, and adds the number to it that is not.
    pub(super) fn complete(&mut self, resources: &mut LinuxResources) {
        let Some(mut cpu) = resources.cpu().clone() else { return };
        if cpu.quota().unwrap_or(0) == 0 && cpu.period().unwrap_or(0) == 0 {
            return;
        }
        self.take(Some(&cpu));
        cpu.set_quota(self.quota);
        cpu.set_period(self.period);
        resources.set_cpu(Some(cpu));
    }
}

/// Refuses more than the machine was made with: nothing can be plugged into it.
pub(super) fn check_fits(resources: &LinuxResources, vcpus: u8, memory_mib: u64) -> Result<(), Error> {
    let limit = resources.memory().as_ref().and_then(oci_spec::runtime::LinuxMemory::limit);
    if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
        && limit.div_ceil(1 << 20) > memory_mib
    {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the machine was made with {memory_mib} MiB and cannot grow to a limit of {limit} bytes: create the container \
                 with the annotation dev.dewar.memory-mib"
            ),
        ));
    }
    let cpu = resources.cpu().as_ref();
    let quota = cpu.and_then(LinuxCpu::quota).and_then(|quota| u64::try_from(quota).ok());
    let period = cpu.and_then(LinuxCpu::period).unwrap_or(100_000).max(1);
    if quota.is_some_and(|quota| quota.div_ceil(period) > u64::from(vcpus)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the machine was made with {vcpus} vCPUs and cannot grow: create the container with the annotation \
                 dev.dewar.vcpus"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources_and_what_is_not_given_is_absent() {
        let flags = UpdateFlags {
            memory: Some("64m".into()),
            memory_swap: Some("-1".into()),
            cpu_quota: Some(50_000),
            ..UpdateFlags::default()
        };
        let resources = serde_json::to_value(flags.resources().expect("valid")).expect("encodes");
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["memory"]["swap"], -1);
        assert_eq!(resources["cpu"]["quota"], 50_000);
        assert!(resources.get("pids").is_none_or(Value::is_null));
        let wrong = UpdateFlags { memory: Some("much".into()), ..UpdateFlags::default() };
        assert_eq!(wrong.resources().expect_err("wrong").kind(), ErrorKind::Invalid);
    }

    #[test]
    fn half_a_bandwidth_goes_with_the_other_half() {
        let resources = |value: Value| -> LinuxResources { serde_json::from_value(value).expect("valid") };
        let mut bandwidth = Bandwidth::of(Some(&resources(json!({"cpu": {"quota": 500_000, "period": 1_000_000}}))));
        let mut completed = |value: Value| {
            let mut resources = resources(value);
            bandwidth.complete(&mut resources);
            let cpu = resources.cpu().clone().expect("is there");
            (cpu.quota(), cpu.period())
        };
        assert_eq!(completed(json!({"cpu": {"period": 900_000}})), (Some(500_000), Some(900_000)));
        assert_eq!(completed(json!({"cpu": {"quota": 600_000}})), (Some(600_000), Some(900_000)));
        assert_eq!(completed(json!({"cpu": {"shares": 7}})), (None, None));
        assert_eq!(completed(json!({"cpu": {"quota": -1, "period": 0}})), (Some(-1), Some(900_000)));
    }

    #[test]
    fn a_machine_does_not_grow() {
        let resources = |value: Value| serde_json::from_value(value).expect("valid");
        assert!(check_fits(&resources(json!({"memory": {"limit": 512 << 20}})), 1, 512).is_ok());
        assert!(check_fits(&resources(json!({"memory": {"limit": -1}})), 1, 512).is_ok());
        assert!(check_fits(&resources(json!({"memory": {"limit": 513 << 20}})), 1, 512).is_err());
        assert!(check_fits(&resources(json!({"cpu": {"quota": 100_000}})), 1, 512).is_ok());
        assert!(check_fits(&resources(json!({"cpu": {"quota": 100_001}})), 1, 512).is_err());
    }
}
