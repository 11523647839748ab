//! The guest's counters in the shape of runc's `events --stats`, which podman, docker and containerd read.

use dewar_protocol::Stats;
use serde::Serialize;
use serde_json::{Value, json};

/// One event; encoded, its fields come in runc's order, which readers of its lines go by.
#[derive(Debug, Clone, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
}

/// The kernel killed a process of the container for lack of memory.
#[must_use]
pub fn oom_event(id: &str) -> Event<'_> {
    Event { kind: "oom", id, data: Value::Null }
}

/// One event of the type `stats`. Times in nanoseconds, sizes in bytes, as runc's.
#[must_use]
pub fn stats_event<'a>(id: &'a str, stats: &Stats) -> Event<'a> {
    let nanoseconds = |us: u64| us.saturating_mul(1000);
    let limit = stats.memory_limit.unwrap_or(u64::MAX);
    let data = json!({
        "cpu": {
            "usage": {
                "total": nanoseconds(stats.cpu_usage_us),
                "kernel": nanoseconds(stats.cpu_system_us),
                "user": nanoseconds(stats.cpu_user_us)
            },
            "throttling": {
                "periods": stats.cpu_periods,
                "throttledPeriods": stats.cpu_throttled_periods,
                "throttledTime": nanoseconds(stats.cpu_throttled_us)
            }
        },
        "cpuset": {},
        "memory": {
            "cache": stats.memory_file,
            "usage": {
                "limit": limit,
                "usage": stats.memory_current,
                "max": stats.memory_peak,
                "failcnt": stats.oom_kills
            },
            "swap": {"limit": 0, "usage": stats.swap_current, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": {
                "anon": stats.memory_anon,
                "file": stats.memory_file,
                "inactive_file": stats.memory_inactive_file
            }
        },
        "pids": {"current": stats.pids_current, "limit": stats.pids_limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"op": "Read", "value": stats.io_read_bytes},
                {"op": "Write", "value": stats.io_write_bytes}
            ],
            "ioServicedRecursive": [
                {"op": "Read", "value": stats.io_reads},
                {"op": "Write", "value": stats.io_writes}
            ]
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null
    });
    Event { kind: "stats", id, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_where_engines_look_for_them() {
        let stats = Stats { cpu_usage_us: 5, memory_current: 7, pids_current: 2, ..Stats::default() };
        let event = serde_json::to_string(&stats_event("box", &stats)).expect("encodes");
        assert!(event.starts_with(r#"{"type":"stats","id":"box","data":{"#), "{event}");
        let event: Value = serde_json::from_str(&event).expect("JSON");
        assert_eq!(event["data"]["cpu"]["usage"]["total"], 5000);
        assert_eq!(event["data"]["memory"]["usage"]["usage"], 7);
        assert_eq!(event["data"]["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(serde_json::to_string(&oom_event("box")).expect("encodes"), r#"{"type":"oom","id":"box"}"#);
        assert_eq!(event["data"]["pids"]["current"], 2);
    }
}
