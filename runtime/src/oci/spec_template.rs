//! The `config.json` that `spec` writes to start from: runc's, for this runtime.

use serde_json::{Value, json};

/// The template; `rootless`: for a user without privileges.
#[must_use]
pub fn template(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let mut linux = json!({
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if rootless {
        namespaces.retain(|kind| *kind != "network");
        namespaces.push("user");
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": rustix::process::geteuid().as_raw(), "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": rustix::process::getegid().as_raw(), "size": 1}]);
        if let Some(object) = linux.as_object_mut() {
            object.remove("resources");
        }
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": super::support::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "dewar",
        "mounts": mounts(rootless),
        "linux": linux,
    })
}

fn mounts(rootless: bool) -> Value {
    let sys = if rootless {
        json!({"destination": "/sys", "type": "none", "source": "/sys",
               "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
    } else {
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        pts.push("gid=5");
    }
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_valid_specification_that_nothing_of_is_refused() {
        for rootless in [false, true] {
            let spec = template(rootless);
            super::super::support::refuse(&spec).expect("supported");
            let spec: oci_spec::runtime::Spec = serde_json::from_value(spec).expect("valid");
            assert_eq!(spec.linux().as_ref().and_then(|l| l.namespaces().as_ref()).map(Vec::len), Some(6));
        }
    }
}
