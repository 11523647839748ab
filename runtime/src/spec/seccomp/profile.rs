//! Docker's profile format, a superset of the OCI's, and the decision of its conditions.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall,
};
use serde::Deserialize;

use super::{GUEST_ARCHES, GUEST_KERNEL};
use crate::spec::{SpecError, capabilities};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) default_action: LinuxSeccompAction,
    pub(super) default_errno_ret: Option<u32>,
    pub(super) architectures: Option<Vec<Arch>>,
    pub(super) arch_map: Option<Vec<ArchMap>>,
    pub(super) flags: Option<Vec<LinuxSeccompFilterFlag>>,
    pub(super) listener_path: Option<String>,
    #[serde(default)]
    pub(super) syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArchMap {
    pub(super) architecture: Arch,
    pub(super) sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    /// Docker's old spelling of a single name.
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) action: LinuxSeccompAction,
    pub(super) errno_ret: Option<u32>,
    pub(super) args: Option<Vec<LinuxSeccompArg>>,
    pub(super) includes: Option<Filter>,
    pub(super) excludes: Option<Filter>,
}

/// Conditions; an absent one does not matter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    pub(super) arches: Option<Vec<String>>,
    pub(super) caps: Option<Vec<String>>,
    /// `4.8`
    pub(super) min_kernel: Option<String>,
}

impl Filter {
    fn arch_matches(&self) -> bool {
        self.arches.iter().flatten().any(|arch| GUEST_ARCHES.contains(&arch.as_str()))
    }

    fn kernel_matches(&self) -> bool {
        self.min_kernel.as_deref().and_then(version).is_some_and(|least| GUEST_KERNEL >= least)
    }

    /// All that is named holds.
    fn includes(&self, capabilities: &Capabilities) -> bool {
        let all_caps = self.caps.iter().flatten().all(|name| has(capabilities, name));
        all_caps && (empty(&self.arches) || self.arch_matches()) && (self.min_kernel.is_none() || self.kernel_matches())
    }

    /// Any of what is named holds.
    fn excludes(&self, capabilities: &Capabilities) -> bool {
        self.caps.iter().flatten().any(|name| has(capabilities, name)) || self.arch_matches() || self.kernel_matches()
    }
}

fn empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn capability(name: &str) -> Option<Capability> {
    capabilities::by_name(name.strip_prefix("CAP_")?)
}

fn has(capabilities: &Capabilities, name: &str) -> bool {
    capability(name).is_some_and(|c| capabilities.contains(&c))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Profile {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let wrong = |what: String| Err(SpecError::ProfileRule { what });
        if self.architectures.as_ref().is_some_and(|a| !a.is_empty())
            && self.arch_map.as_ref().is_some_and(|a| !a.is_empty())
        {
            return wrong("'architectures' and 'archMap' were specified, use either".into());
        }
        if self.listener_path.as_ref().is_some_and(|p| !p.is_empty()) {
            return wrong("listenerPath names a socket of the host, which a guest cannot reach".into());
        }
        for rule in &self.syscalls {
            if rule.name.is_empty() == rule.names.is_empty() {
                return wrong(format!("a rule needs either 'name' or 'names': '{}' {:?}", rule.name, rule.names));
            }
            if rule.args.iter().flatten().any(|arg| arg.index() > 5) {
                return wrong(format!("an argument's index is above 5 in the rule for {:?}", rule.names));
            }
            for filter in rule.includes.iter().chain(&rule.excludes) {
                if filter.min_kernel.as_deref().is_some_and(|text| version(text).is_none()) {
                    return wrong(format!("minKernel {:?} is no version", filter.min_kernel));
                }
            }
        }
        Ok(())
    }

    /// The plain rules that hold for a container with these capabilities.
    pub(super) fn decide(self, capabilities: &Capabilities) -> LinuxSeccomp {
        let mut syscalls = Vec::new();
        for rule in self.syscalls {
            let included = rule.includes.as_ref().is_none_or(|f| f.includes(capabilities));
            let excluded = rule.excludes.as_ref().is_some_and(|f| f.excludes(capabilities));
            if !included || excluded {
                continue;
            }
            let mut syscall = LinuxSyscall::default();
            syscall
                .set_names(if rule.names.is_empty() { vec![rule.name] } else { rule.names })
                .set_action(rule.action)
                .set_errno_ret(rule.errno_ret)
                .set_args(rule.args.filter(|args| !args.is_empty()));
            syscalls.push(syscall);
        }
        let mapped = self.arch_map.into_iter().flatten().find(|map| map.architecture == Arch::ScmpArchX86_64);
        let mapped = mapped.map(|map| [vec![map.architecture], map.sub_architectures.unwrap_or_default()].concat());
        let mut seccomp = LinuxSeccomp::default();
        seccomp
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(self.architectures.filter(|a| !a.is_empty()).or(mapped))
            .set_flags(self.flags.filter(|f| !f.is_empty()))
            .set_syscalls(Some(syscalls));
        seccomp
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile as parse;
    use super::*;

    fn decide(text: &str, capabilities: &[Capability]) -> Result<Vec<String>, String> {
        let set = capabilities.iter().copied().collect();
        let seccomp = parse(text, &set).map_err(|e| e.to_string())?;
        Ok(seccomp.syscalls().iter().flatten().flat_map(|s| s.names().clone()).collect())
    }

    fn rules(conditions: &[&str]) -> String {
        let rules: Vec<String> = (conditions.iter().enumerate())
            .map(|(i, c)| format!(r#"{{"names":["call{i}"],"action":"SCMP_ACT_ALLOW"{c}}}"#))
            .collect();
        format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","))
    }

    #[test]
    fn conditions_are_decided_as_docker_decides_them() {
        let text = rules(&[
            "",
            r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#,
            r#","includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            r#","excludes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#,
            r#","includes":{"arches":["amd64","x32"]}"#,
            r#","includes":{"arches":["arm64"]}"#,
            r#","excludes":{"arches":["s390","s390x"]}"#,
            r#","includes":{"minKernel":"4.8"}"#,
            r#","includes":{"minKernel":"99.0"}"#,
            r#","includes":{}"#,
        ]);
        let with = decide(&text, &[Capability::SysAdmin]).expect("valid");
        assert_eq!(with, ["call0", "call1", "call4", "call6", "call7", "call9"]);
        let without = decide(&text, &[]).expect("valid");
        assert_eq!(without, ["call0", "call3", "call4", "call6", "call7", "call9"]);
    }

    #[test]
    fn the_specification_s_own_format_passes_through() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":38,
            "args":[{"index":1,"value":448,"op":"SCMP_CMP_EQ"}]}]}"#;
        let seccomp = parse(text, &Capabilities::default()).expect("valid");
        let direct: LinuxSeccomp = serde_json::from_str(text).expect("valid");
        assert_eq!(seccomp, direct);
    }

    #[test]
    fn a_map_of_architectures_becomes_a_list() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[
            {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
            {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}]}"#;
        let seccomp = parse(text, &Capabilities::default()).expect("valid");
        assert_eq!(seccomp.architectures().clone(), Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]));
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_BOGUS"}"#,
            "[]",
            "",
        ] {
            assert!(decide(text, &[]).is_err(), "{text}");
        }
        assert!(decide(&rules(&[r#","includes":{"minKernel":"new"}"#]), &[]).is_err());
        assert!(decide(&rules(&[r#","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#]), &[]).is_err());
    }
}
