//! OCI `linux.resources` as cgroup v2 files and values. Pure.
//!
//! Conversions are those of runc, except that what runc ignores on version 2 is refused here: what was asked for and is
//! not in force should not look as if it were. The kernel memory limits alone are ignored, as the specification says.

use std::{borrow::Cow, collections::HashMap};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};
use rustix::io::Errno;

use super::CgroupError;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub file: Cow<'static, str>,
    pub value: String,
    /// The one error that is no error. ENOENT: the kernel has no such file.
    pub tolerate: Option<Errno>,
    /// What to set when the kernel has no such file.
    pub otherwise: Option<Box<Setting>>,
}

impl Setting {
    fn new(file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { file: file.into(), value: value.to_string(), tolerate: None, otherwise: None }
    }

    fn tolerating(self, errno: Errno) -> Self {
        Self { tolerate: Some(errno), ..self }
    }

    fn or_else(self, other: Self) -> Self {
        Self { otherwise: Some(Box::new(other)), ..self }
    }
}

/// Converts everything but the device rules, in the order in which it is to be written.
pub(super) fn convert(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    let mut out = Vec::new();
    if let Some(network) = resources.network() {
        refuse_network(network)?;
    }
    if let Some(pids) = resources.pids() {
        out.extend(amount(pids.limit()).map(|limit| Setting::new("pids.max", limit)));
    }
    if let Some(memory) = resources.memory() {
        convert_memory(memory, &mut out)?;
    }
    if let Some(block_io) = resources.block_io() {
        convert_block_io(block_io, &mut out)?;
    }
    if let Some(cpu) = resources.cpu() {
        convert_cpu(cpu, &mut out)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        convert_hugepages(limit, &mut out)?;
    }
    if let Some(rdma) = resources.rdma() {
        convert_rdma(rdma, &mut out)?;
    }
    if let Some(unified) = resources.unified() {
        convert_unified(unified, &mut out)?;
    }
    Ok(out)
}

/// The specification's numbers: 0 is not set, negative is no limit.
fn amount(value: i64) -> Option<String> {
    match value {
        0 => None,
        ..0 => Some("max".to_owned()),
        _ => Some(value.to_string()),
    }
}

fn refuse_network(network: &LinuxNetwork) -> Result<(), CgroupError> {
    let option = if network.class_id().is_some_and(|id| id != 0) {
        "linux.resources.network.classID"
    } else if network.priorities().as_ref().is_some_and(|p| !p.is_empty()) {
        "linux.resources.network.priorities"
    } else {
        return Ok(());
    };
    Err(CgroupError::Unsupported { option, reason: "cgroup version 2 has no network controller" })
}

fn convert_cpu(cpu: &LinuxCpu, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if cpu.realtime_runtime().is_some_and(|v| v != 0) || cpu.realtime_period().is_some_and(|v| v != 0) {
        return Err(CgroupError::Unsupported {
            option: "linux.resources.cpu.realtimeRuntime and realtimePeriod",
            reason: "cgroup version 2 has no limits for real-time scheduling",
        });
    }
    out.extend(cpu.idle().map(|idle| Setting::new("cpu.idle", idle)));
    out.extend(cpu.shares().filter(|s| *s != 0).map(|shares| Setting::new("cpu.weight", weight_of_shares(shares))));

    let quota = cpu.quota().filter(|q| *q != 0);
    let period = cpu.period().filter(|p| *p != 0);
    let bandwidth = (quota.is_some() || period.is_some()).then(|| {
        let quota = quota.and_then(amount).unwrap_or_else(|| "max".to_owned());
        Setting::new("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)))
    });
    let burst = cpu.burst().map(|burst| Setting::new("cpu.max.burst", burst));
    // The kernel wants burst <= quota at every moment: the burst goes first when both fall, and last when both rise.
    if bandwidth.is_some() {
        out.extend(burst.clone().map(|b| b.tolerating(Errno::INVAL)));
    }
    out.extend(bandwidth);
    out.extend(burst);

    let given = |list: &Option<String>| list.clone().filter(|l| !l.is_empty());
    out.extend(given(cpu.cpus()).map(|cpus| Setting::new("cpuset.cpus", cpus)));
    out.extend(given(cpu.mems()).map(|mems| Setting::new("cpuset.mems", mems)));
    Ok(())
}

/// Maps version 1's shares (2 to 262144, default 1024) to version 2's weight (1 to 10000, default 100): runc's curve since
/// 1.3, which maps the extremes and the default to each other.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
        }
    }
}

fn convert_memory(memory: &LinuxMemory, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let unsupported = |option, reason| Err(CgroupError::Unsupported { option, reason });
    if memory.disable_oom_killer() == Some(true) {
        return unsupported(
            "linux.resources.memory.disableOOMKiller",
            "cgroup version 2 cannot switch the OOM killer off",
        );
    }
    if memory.swappiness().is_some() {
        return unsupported(
            "linux.resources.memory.swappiness",
            "cgroup version 2 has no swappiness of a single group",
        );
    }
    if let Some(swap) = swap_value(memory)? {
        let setting = Setting::new("memory.swap.max", &swap);
        // A kernel without swap does what these two ask for.
        let harmless = swap == "max" || swap == "0";
        out.push(if harmless { setting.tolerating(Errno::NOENT) } else { setting });
    }
    out.extend(memory.limit().and_then(amount).map(|limit| Setting::new("memory.max", limit)));
    out.extend(memory.reservation().and_then(amount).map(|low| Setting::new("memory.low", low)));
    Ok(())
}

/// The specification's `swap` is memory and swap together, version 2's is swap alone.
fn swap_value(memory: &LinuxMemory) -> Result<Option<String>, CgroupError> {
    let limit = memory.limit().unwrap_or(0);
    let swap = memory.swap().unwrap_or(0);
    let invalid =
        |reason| Err(CgroupError::Invalid { option: "linux.resources.memory.swap", value: swap.to_string(), reason });
    match (limit, swap) {
        (-1, 0) | (_, -1) => Ok(Some("max".to_owned())),
        (_, 0) => Ok(None),
        (_, ..-1) => invalid("it is neither -1 nor a size"),
        (..=0, _) => invalid("swap cannot be limited without a memory limit"),
        _ => match swap.checked_sub(limit) {
            Some(swap @ 0..) => Ok(Some(swap.to_string())),
            _ => invalid("it includes the memory, and is below the memory limit"),
        },
    }
}

/// `checkBeforeUpdate`: refuses limits below what is in use.
pub(super) fn check_usage(resources: &LinuxResources, usage: u64) -> Result<(), CgroupError> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    for (what, limit) in [("memory and swap", memory.swap()), ("memory", memory.limit())] {
        match limit.and_then(|l| u64::try_from(l).ok()) {
            Some(limit @ 1..) if limit <= usage => return Err(CgroupError::BelowUsage { what, limit, usage }),
            _ => {}
        }
    }
    Ok(())
}

fn convert_block_io(block_io: &LinuxBlockIo, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    if block_io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(leaf_weight());
    }
    if let Some(weight) = block_io.weight().filter(|w| *w != 0) {
        let io_weight = Setting::new("io.weight", format!("default {}", io_weight(weight)?));
        out.push(Setting::new("io.bfq.weight", weight).or_else(io_weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        if device.leaf_weight().is_some_and(|w| w != 0) {
            return Err(leaf_weight());
        }
        let Some(weight) = device.weight().filter(|w| *w != 0) else { continue };
        let number = device_number(device.major(), device.minor())?;
        let io_weight = Setting::new("io.weight", format!("{number} {}", io_weight(weight)?));
        out.push(Setting::new("io.bfq.weight", format!("{number} {weight}")).or_else(io_weight));
    }
    throttle("rbps", block_io.throttle_read_bps_device(), out)?;
    throttle("wbps", block_io.throttle_write_bps_device(), out)?;
    throttle("riops", block_io.throttle_read_iops_device(), out)?;
    throttle("wiops", block_io.throttle_write_iops_device(), out)
}

fn leaf_weight() -> CgroupError {
    CgroupError::Unsupported {
        option: "linux.resources.blockIO.leafWeight",
        reason: "cgroup version 2 has no weight of a group's own processes",
    }
}

/// From the specification's and BFQ's range (10 to 1000) to that of io.weight (1 to 10000).
fn io_weight(weight: u16) -> Result<u64, CgroupError> {
    let above = weight.checked_sub(10).filter(|_| weight <= 1000).ok_or_else(|| CgroupError::Invalid {
        option: "linux.resources.blockIO.weight",
        value: weight.to_string(),
        reason: "it must be from 10 to 1000",
    })?;
    Ok(u64::from(above) * 9999 / 990 + 1)
}

fn throttle(key: &str, devices: &Option<Vec<LinuxThrottleDevice>>, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    for device in devices.iter().flatten() {
        let number = device_number(device.major(), device.minor())?;
        // Version 1's way to lift a limit; the kernel refuses it in version 2.
        let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
        out.push(Setting::new("io.max", format!("{number} {key}={rate}")));
    }
    Ok(())
}

fn device_number(major: i64, minor: i64) -> Result<String, CgroupError> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(CgroupError::Invalid {
            option: "A device number in linux.resources.blockIO",
            value: format!("{major}:{minor}"),
            reason: "it is out of range",
        }),
    }
}

fn convert_hugepages(limit: &LinuxHugepageLimit, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let size = limit.page_size();
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CgroupError::Invalid {
            option: "linux.resources.hugepageLimits.pageSize",
            value: size.clone(),
            reason: "it must be a number with KB, MB or GB behind it",
        });
    }
    // A limit of 0 is one.
    let value = if limit.limit() < 0 { "max".to_owned() } else { limit.limit().to_string() };
    out.push(Setting::new(format!("hugetlb.{size}.max"), &value));
    out.push(Setting::new(format!("hugetlb.{size}.rsvd.max"), value).tolerating(Errno::NOENT));
    Ok(())
}

fn convert_rdma(rdma: &HashMap<String, LinuxRdma>, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    for (device, limit) in sorted(rdma) {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(CgroupError::Invalid {
                option: "A device in linux.resources.rdma",
                value: device.clone(),
                reason: "it is not a device's name",
            });
        }
        let handles = limit.hca_handles().map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|n| format!(" hca_object={n}")).unwrap_or_default();
        if !(handles.is_empty() && objects.is_empty()) {
            out.push(Setting::new("rdma.max", format!("{device}{handles}{objects}")));
        }
    }
    Ok(())
}

fn convert_unified(unified: &HashMap<String, String>, out: &mut Vec<Setting>) -> Result<(), CgroupError> {
    for (file, value) in sorted(unified) {
        let is_file_name = !file.contains(['/', '\0'])
            && file.split_once('.').is_some_and(|(c, rest)| !c.is_empty() && !rest.is_empty());
        if !is_file_name {
            return Err(CgroupError::Invalid {
                option: "A name in linux.resources.unified",
                value: file.clone(),
                reason: "it must be a file name with a dot and without a slash",
            });
        }
        // These do not limit the group: they move processes, the agent itself included, or change what kind it is.
        if ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.type"].contains(&file.as_str()) {
            return Err(CgroupError::Invalid {
                option: "A name in linux.resources.unified",
                value: file.clone(),
                reason: "it is not a resource",
            });
        }
        out.push(Setting::new(file.clone(), value));
    }
    Ok(())
}

/// Maps have no order: one is made, so that the same request is always applied in the same way.
fn sorted<T>(map: &HashMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("parses")
    }

    fn written(json: &str) -> Vec<String> {
        let settings = convert(&resources(json)).expect("converts");
        settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    fn refused(json: &str) -> String {
        convert(&resources(json)).expect_err("refuses").to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert_eq!(written("{}"), [""; 0]);
        assert_eq!(written(r#"{"cpu":{},"memory":{},"pids":{},"blockIO":{},"unified":{},"network":{}}"#), [""; 0]);
        assert_eq!(written(r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#), [""; 0]);
    }

    #[test]
    fn shares_become_weight() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let weights: Vec<u64> = (1..19).map(|bit| weight_of_shares(1 << bit)).collect();
        assert!(weights.is_sorted() && weights.iter().all(|w| (1..=10_000).contains(w)));
    }

    #[test]
    fn cpu_bandwidth() {
        assert_eq!(written(r#"{"cpu":{"quota":50000,"period":100000}}"#), ["cpu.max=50000 100000"]);
        assert_eq!(written(r#"{"cpu":{"quota":50000}}"#), ["cpu.max=50000 100000"]);
        assert_eq!(written(r#"{"cpu":{"period":5000}}"#), ["cpu.max=max 5000"]);
        assert_eq!(written(r#"{"cpu":{"quota":-1,"period":5000}}"#), ["cpu.max=max 5000"]);
    }

    #[test]
    fn a_burst_is_written_before_and_after_the_quota() {
        let settings = convert(&resources(r#"{"cpu":{"quota":50000,"burst":10}}"#)).expect("converts");
        let files: Vec<_> = settings.iter().map(|s| (s.file.as_ref(), s.tolerate)).collect();
        assert_eq!(files, [("cpu.max.burst", Some(Errno::INVAL)), ("cpu.max", None), ("cpu.max.burst", None)]);
        assert_eq!(written(r#"{"cpu":{"burst":10}}"#), ["cpu.max.burst=10"]);
    }

    #[test]
    fn other_cpu_settings() {
        assert_eq!(
            written(r#"{"cpu":{"idle":1,"shares":1024,"cpus":"0-1","mems":"0"}}"#),
            ["cpu.idle=1", "cpu.weight=100", "cpuset.cpus=0-1", "cpuset.mems=0"]
        );
        assert!(refused(r#"{"cpu":{"realtimeRuntime":5}}"#).contains("real-time"));
    }

    #[test]
    fn memory_and_swap() {
        for (json, expected) in [
            (r#"{"limit":100}"#, vec!["memory.max=100"]),
            (r#"{"limit":100,"swap":100}"#, vec!["memory.swap.max=0", "memory.max=100"]),
            (r#"{"limit":100,"swap":150}"#, vec!["memory.swap.max=50", "memory.max=100"]),
            (r#"{"limit":100,"swap":-1}"#, vec!["memory.swap.max=max", "memory.max=100"]),
            (r#"{"limit":-1}"#, vec!["memory.swap.max=max", "memory.max=max"]),
            (r#"{"limit":-1,"swap":-1}"#, vec!["memory.swap.max=max", "memory.max=max"]),
            (r#"{"swap":-1}"#, vec!["memory.swap.max=max"]),
            (r#"{"reservation":7}"#, vec!["memory.low=7"]),
            (r#"{"kernel":5,"kernelTCP":6,"useHierarchy":true,"disableOOMKiller":false}"#, vec![]),
        ] {
            assert_eq!(written(&format!(r#"{{"memory":{json}}}"#)), expected, "{json}");
        }
        for json in [
            r#"{"swap":5}"#,
            r#"{"limit":-1,"swap":5}"#,
            r#"{"limit":10,"swap":5}"#,
            r#"{"limit":10,"swap":-2}"#,
            r#"{"limit":-9223372036854775808,"swap":9223372036854775807}"#,
            r#"{"disableOOMKiller":true}"#,
            r#"{"swappiness":60}"#,
        ] {
            assert!(convert(&resources(&format!(r#"{{"memory":{json}}}"#))).is_err(), "{json}");
        }
    }

    #[test]
    fn a_kernel_without_swap_needs_none_to_have_none() {
        let tolerated = |json: &str| convert(&resources(json)).expect("converts")[0].tolerate;
        assert_eq!(tolerated(r#"{"memory":{"limit":5,"swap":5}}"#), Some(Errno::NOENT));
        assert_eq!(tolerated(r#"{"memory":{"limit":5,"swap":6}}"#), None);
    }

    #[test]
    fn limits_below_the_usage_are_refused_when_asked_to() {
        let check = |json: &str| check_usage(&resources(json), 100);
        assert!(check(r#"{"memory":{"limit":101,"swap":101}}"#).is_ok());
        assert!(check(r#"{"memory":{"limit":-1,"swap":-1}}"#).is_ok());
        let error = check(r#"{"memory":{"limit":100}}"#).expect_err("refuses");
        assert_eq!(error.to_string(), "Refusing the memory limit of 100 bytes: 100 bytes are in use");
        assert!(check(r#"{"memory":{"limit":101,"swap":99}}"#).is_err());
    }

    #[test]
    fn pids() {
        assert_eq!(written(r#"{"pids":{"limit":10}}"#), ["pids.max=10"]);
        assert_eq!(written(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
        assert_eq!(written(r#"{"pids":{"limit":0}}"#), [""; 0]);
    }

    #[test]
    fn block_io_weights_fall_back_to_io_weight() {
        let json = r#"{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#;
        let settings = convert(&resources(json)).expect("converts");
        let both: Vec<_> = settings
            .iter()
            .map(|s| (s.value.as_str(), s.otherwise.as_ref().map(|o| (o.file.as_ref(), o.value.as_str()))))
            .collect();
        assert_eq!(both, [("1000", Some(("io.weight", "default 10000"))), ("8:0 10", Some(("io.weight", "8:0 1")))]);
        assert!(refused(r#"{"blockIO":{"weight":9}}"#).contains("from 10 to 1000"));
        assert!(refused(r#"{"blockIO":{"weight":1001}}"#).contains("from 10 to 1000"));
        assert!(refused(r#"{"blockIO":{"leafWeight":10}}"#).contains("leafWeight"));
    }

    #[test]
    fn block_io_throttles() {
        let json = r#"{"blockIO":{
            "throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1}],
            "throttleWriteBpsDevice":[{"major":254,"minor":0,"rate":0}],
            "throttleReadIOPSDevice":[{"major":254,"minor":16,"rate":3}],
            "throttleWriteIOPSDevice":[{"major":254,"minor":16,"rate":4}]}}"#;
        assert_eq!(
            written(json),
            ["io.max=254:0 rbps=1", "io.max=254:0 wbps=max", "io.max=254:16 riops=3", "io.max=254:16 wiops=4"]
        );
        assert!(refused(r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#).contains("-1:0"));
    }

    #[test]
    fn huge_pages_and_rdma() {
        assert_eq!(
            written(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#),
            ["hugetlb.2MB.max=0", "hugetlb.2MB.rsvd.max=0"]
        );
        for size in ["", "MB", "2mb", "../2MB", "2 MB"] {
            let json = format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#);
            assert!(convert(&resources(&json)).is_err(), "{size}");
        }
        assert_eq!(
            written(r#"{"rdma":{"b":{"hcaObjects":3},"a":{"hcaHandles":1,"hcaObjects":2},"c":{}}}"#),
            ["rdma.max=a hca_handle=1 hca_object=2", "rdma.max=b hca_object=3"]
        );
        assert!(convert(&resources(r#"{"rdma":{"a b":{"hcaHandles":1}}}"#)).is_err());
    }

    #[test]
    fn unified_takes_file_names_only() {
        assert_eq!(written(r#"{"unified":{"memory.high":"5","cpu.weight":"7"}}"#), ["cpu.weight=7", "memory.high=5"]);
        for name in ["", "memory", "../memory.max", "a/b.c", ".", "..", ".max", "max.", "cgroup.procs", "cgroup.kill"] {
            let json = format!(r#"{{"unified":{{"{name}":"1"}}}}"#);
            assert!(convert(&resources(&json)).is_err(), "{name}");
        }
    }

    #[test]
    fn network_classes_are_refused() {
        assert!(refused(r#"{"network":{"classID":5}}"#).contains("classID"));
        assert!(refused(r#"{"network":{"priorities":[{"name":"eth0","priority":1}]}}"#).contains("priorities"));
        assert_eq!(written(r#"{"network":{"classID":0,"priorities":[]}}"#), [""; 0]);
    }
}
