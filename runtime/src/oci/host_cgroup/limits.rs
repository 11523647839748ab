//! The settings of a group on the host: the container's limits as cgroup v1 and v2 write them, with what a machine costs on
//! top.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxResources, LinuxThrottleDevice};

/// What the guest's kernel, the VMM and the servers may use beside the container's own limit, in bytes.
pub(super) const MEMORY_OVERHEAD: u64 = 192 << 20;
/// Threads of a machine's processes that come on top of the vCPUs'.
const TASKS: u64 = 512;

/// Files of cgroup v2 that settings are written to, in an order in which the kernel takes them.
const V2: [&str; 10] = [
    "memory.max",
    "cpu.idle",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "io.weight",
    "io.max",
];
/// The same of cgroup v1.
const V1: [&str; 14] = [
    "memory.limit_in_bytes",
    "cpu.idle",
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.cfs_burst_us",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "blkio.weight",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
];

/// Files of limits in a group of these v1 controllers, or of v2 when there are none.
pub(super) fn files(controllers: &[String]) -> &'static [&'static str] {
    if controllers.is_empty() { &V2 } else { &V1 }
}

/// File and text of each limit, for a group of these v1 controllers, or of v2 when there are none.
pub(super) fn settings(resources: &LinuxResources, controllers: &[String]) -> Vec<(String, String)> {
    if controllers.is_empty() { v2(resources) } else { v1(resources, controllers) }
}

/// With what a machine costs on top; the highest number for none.
pub(in crate::oci) fn memory_limit(resources: &LinuxResources) -> Option<u64> {
    let limit = resources.memory().as_ref()?.limit()?;
    let on_top = |limit: u64| limit.saturating_add(limit / 64).saturating_add(MEMORY_OVERHEAD);
    Some(u64::try_from(limit).map_or(u64::MAX, on_top))
}

/// The machine's threads are bounded where the container's are, whose own limit the guest holds; the highest number for none.
pub(in crate::oci) fn tasks(resources: &LinuxResources) -> Option<u64> {
    resources.pids().as_ref().map(|pids| if pids.limit() < 0 { u64::MAX } else { TASKS })
}

fn tasks_text(resources: &LinuxResources) -> Option<String> {
    tasks(resources).map(|limit| if limit == u64::MAX { "max".to_owned() } else { limit.to_string() })
}

/// A group that is idle has none.
fn shares(cpu: &LinuxCpu) -> Option<u64> {
    cpu.shares().filter(|shares| *shares > 0 && cpu.idle() != Some(1))
}

/// Settings of cgroup v2.
fn v2(resources: &LinuxResources) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |file: &str, value: Option<String>| settings.extend(value.map(|value| (file.to_owned(), value)));
    let memory = memory_limit(resources);
    set("memory.max", memory.map(|limit| if limit == u64::MAX { "max".into() } else { limit.to_string() }));
    if let Some(cpu) = resources.cpu() {
        set("cpu.idle", cpu.idle().map(|idle| idle.to_string()));
        set("cpu.weight", shares(cpu).map(|shares| weight(shares).to_string()));
        let quota = cpu.quota().map(|quota| if quota > 0 { quota.to_string() } else { "max".into() });
        let period = cpu.period().unwrap_or(100_000);
        set("cpu.max", quota.map(|quota| format!("{quota} {period}")));
        set("cpu.max.burst", cpu.burst().map(|burst| burst.to_string()));
        set("cpuset.cpus", cpu.cpus().clone().filter(|set| !set.is_empty()));
        set("cpuset.mems", cpu.mems().clone().filter(|set| !set.is_empty()));
    }
    set("pids.max", tasks_text(resources));
    if let Some(block) = resources.block_io() {
        set(
            "io.weight",
            block.weight().filter(|weight| *weight > 0).map(|weight| format!("default {}", io_weight(weight))),
        );
        for (list, name) in throttles(block) {
            for device in list.iter().flatten() {
                set("io.max", Some(format!("{}:{} {name}={}", device.major(), device.minor(), device.rate())));
            }
        }
    }
    settings
}

type Throttles<'a> = [(&'a Option<Vec<LinuxThrottleDevice>>, &'static str); 4];

fn throttles(block: &LinuxBlockIo) -> Throttles<'_> {
    [
        (block.throttle_read_bps_device(), "rbps"),
        (block.throttle_write_bps_device(), "wbps"),
        (block.throttle_read_iops_device(), "riops"),
        (block.throttle_write_iops_device(), "wiops"),
    ]
}

/// Settings of cgroup v1.
fn v1(resources: &LinuxResources, controllers: &[String]) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |controller: &str, file: &str, value: Option<String>| {
        if controllers.iter().any(|name| name == controller) {
            settings.extend(value.map(|value| (file.to_owned(), value)));
        }
    };
    let memory = memory_limit(resources);
    let memory = memory.map(|limit| if limit == u64::MAX { "-1".into() } else { limit.to_string() });
    set("memory", "memory.limit_in_bytes", memory);
    if let Some(cpu) = resources.cpu() {
        set("cpu", "cpu.idle", cpu.idle().map(|idle| idle.to_string()));
        set("cpu", "cpu.shares", shares(cpu).map(|shares| shares.to_string()));
        set("cpu", "cpu.cfs_period_us", cpu.period().filter(|period| *period > 0).map(|period| period.to_string()));
        set("cpu", "cpu.cfs_quota_us", cpu.quota().filter(|quota| *quota != 0).map(|quota| quota.to_string()));
        set("cpu", "cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string()));
        set("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|set| !set.is_empty()));
        set("cpuset", "cpuset.mems", cpu.mems().clone().filter(|set| !set.is_empty()));
    }
    set("pids", "pids.max", tasks_text(resources));
    if let Some(block) = resources.block_io() {
        set("blkio", "blkio.weight", block.weight().filter(|weight| *weight > 0).map(|weight| weight.to_string()));
        let files = ["read_bps", "write_bps", "read_iops", "write_iops"];
        for ((list, _), file) in throttles(block).into_iter().zip(files) {
            for device in list.iter().flatten() {
                let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
                set("blkio", &format!("blkio.throttle.{file}_device"), Some(value));
            }
        }
    }
    settings
}

/// cgroup v1's shares (2 to 262144) as v2's weight (1 to 10000), as runc converts them.
pub(in crate::oci) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// cgroup v1's block weight (10 to 1000) as v2's (1 to 10000).
pub(in crate::oci) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_get_what_a_machine_costs_on_top() {
        let text =
            r#"{"memory":{"limit":67108864},"cpu":{"shares":1024,"quota":50000,"period":100000},"pids":{"limit":10}}"#;
        let resources: LinuxResources = serde_json::from_str(text).expect("valid");
        let memory = (64 << 20) + (1 << 20) + MEMORY_OVERHEAD;
        let settings = v2(&resources);
        assert!(settings.contains(&("memory.max".into(), memory.to_string())), "{settings:?}");
        assert!(settings.contains(&("cpu.max".into(), "50000 100000".into())));
        assert!(settings.contains(&("cpu.weight".into(), "39".into())));
        assert!(settings.contains(&("pids.max".into(), "512".into())));
        let unlimited: LinuxResources = serde_json::from_str(r#"{"pids":{"limit":-1}}"#).expect("valid");
        assert_eq!(v2(&unlimited), [("pids.max".to_owned(), "max".to_owned())]);
        let settings = v1(&resources, &["memory".into()]);
        assert_eq!(settings, [("memory.limit_in_bytes".to_owned(), memory.to_string())]);
        // An idle group has no weight, and the kernel refuses one.
        let idle: LinuxResources =
            serde_json::from_str(r#"{"cpu":{"shares":1024,"idle":1,"burst":5000}}"#).expect("valid");
        let expected = |burst: &str| [("cpu.idle".to_owned(), "1".to_owned()), (burst.to_owned(), "5000".to_owned())];
        assert_eq!(v2(&idle), expected("cpu.max.burst"));
        assert_eq!(v1(&idle, &["cpu".into()]), expected("cpu.cfs_burst_us"));
    }

    #[test]
    fn every_setting_s_file_is_listed() {
        let device = r#"[{"major":8,"minor":0,"rate":1}]"#;
        let text = format!(
            r#"{{"memory":{{"limit":1}},"pids":{{"limit":1}},"cpu":{{"shares":2,"quota":1,"period":1,"burst":1,"idle":0,"cpus":"0",
            "mems":"0"}},"blockIO":{{"weight":10,"throttleReadBpsDevice":{device},"throttleWriteBpsDevice":{device},
            "throttleReadIOPSDevice":{device},"throttleWriteIOPSDevice":{device}}}}}"#
        );
        let resources: LinuxResources = serde_json::from_str(&text).expect("valid");
        let controllers = ["memory", "cpu", "cpuset", "pids", "blkio"].map(str::to_owned);
        for controllers in [&[][..], &controllers] {
            let settings = settings(&resources, controllers);
            let mut written: Vec<&str> = settings.iter().map(|(file, _)| file.as_str()).collect();
            written.dedup();
            assert_eq!(written, files(controllers));
        }
    }
}
