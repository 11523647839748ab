//! The whole specification, and the process in it.

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Process, Root, Spec, User};

use super::{
    RunOptions, SeccompChoice, SpecError, capabilities, mounts, namespaces, options::lay_env_over, resources, seccomp,
};

pub(super) const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOSTNAME_MOST: usize = 64;

const NAMESPACES: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Cgroup,
];

/// Docker's for containers with a network namespace of their own: no capability is needed to bind low ports or to ping.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// What `--sysctl` may set: each belongs to a namespace of the container.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
const SYSCTL_PREFIXES: [&str; 2] = ["net.", "fs.mqueue."];

impl RunOptions {
    /// The specification for a container with this id.
    ///
    /// # Errors
    /// Any [`SpecError`] about a value that makes no sense, alone or beside another.
    pub fn to_spec(&self, id: &str) -> Result<Spec, SpecError> {
        let hostname = self.hostname(id);
        check_hostname(&hostname)?;
        let mut root = Root::default();
        root.set_path("rootfs".into()).set_readonly(Some(self.read_only));
        let mut spec = Spec::default();
        spec.set_version("1.2.0".into())
            .set_process(Some(self.process(&hostname)?))
            .set_root(Some(root))
            .set_mounts(Some(mounts::of(self)?))
            .set_linux(Some(self.linux()?))
            .set_hostname(Some(hostname))
            .set_annotations(None);
        Ok(spec)
    }

    fn process(&self, hostname: &str) -> Result<Process, SpecError> {
        let args = self.command()?;
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(SpecError::Nul { what: "the command" });
        }
        let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
        if self.tty {
            env.push("TERM=xterm".into());
        }
        let env = lay_env_over(env, &self.env);
        let mut process = Process::default();
        process
            .set_terminal(Some(self.tty))
            .set_user(User::default())
            .set_args(Some(args))
            .set_env(Some(env))
            .set_cwd(check_workdir(self.workdir.as_deref())?.into())
            .set_capabilities(Some(capabilities::sets(&capabilities::of(self)?)))
            .set_rlimits(resources::rlimits(&self.ulimits))
            .set_no_new_privileges(Some(self.security.no_new_privileges))
            .set_oom_score_adj(Some(0));
        Ok(process)
    }

    fn linux(&self) -> Result<Linux, SpecError> {
        let user = self.id_maps.as_ref().map(|_| LinuxNamespaceType::User);
        let time = (!self.time_offsets.is_empty()).then_some(LinuxNamespaceType::Time);
        let of_type = |typ| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(typ);
            namespace
        };
        let all: Vec<_> = NAMESPACES.into_iter().chain(user).chain(time).map(of_type).collect();
        let open = self.privileged || self.security.unconfined_paths;
        let paths = |list: &[&str]| (!open).then(|| list.iter().map(|p| (*p).to_owned()).collect());
        let mut linux = Linux::default();
        linux
            .set_sysctl(Some(self.sysctls()?))
            .set_resources(Some(resources::of(self)?))
            .set_namespaces(Some(all))
            .set_uid_mappings(self.id_maps.as_ref().map(|maps| namespaces::mappings(&maps.users)))
            .set_gid_mappings(self.id_maps.as_ref().map(|maps| namespaces::mappings(&maps.groups)))
            .set_time_offsets(namespaces::offsets(&self.time_offsets))
            .set_devices(None)
            .set_seccomp(self.seccomp()?)
            .set_masked_paths(paths(&mounts::MASKED_PATHS))
            .set_readonly_paths(paths(&mounts::READONLY_PATHS));
        Ok(linux)
    }

    fn sysctls(&self) -> Result<HashMap<String, String>, SpecError> {
        let mut all: HashMap<String, String> =
            DEFAULT_SYSCTLS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if self.id_maps.is_some() {
            // Groups that the namespace does not have cannot be named; docker leaves it out, too.
            all.remove("net.ipv4.ping_group_range");
        }
        for (name, value) in &self.sysctls {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) && !name.contains("..");
            let known = SYSCTLS.contains(&name.as_str()) || SYSCTL_PREFIXES.iter().any(|p| name.starts_with(p));
            if !plain || !known {
                return Err(SpecError::Sysctl { name: name.clone() });
            }
            all.insert(name.clone(), value.clone());
        }
        Ok(all)
    }

    fn seccomp(&self) -> Result<Option<oci_spec::runtime::LinuxSeccomp>, SpecError> {
        let capabilities = capabilities::of(self)?;
        match &self.security.seccomp {
            // Docker: a privileged container gets a profile only when one is named.
            SeccompChoice::Default if self.privileged => Ok(None),
            SeccompChoice::Unconfined => Ok(None),
            SeccompChoice::Default => Ok(Some(seccomp::default_profile(&capabilities))),
            SeccompChoice::Profile(text) => seccomp::profile(text, &capabilities).map(Some),
        }
    }
}

pub(super) fn check_workdir(path: Option<&str>) -> Result<&str, SpecError> {
    match path {
        None | Some("") => Ok("/"),
        Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(path),
        Some(path) => Err(SpecError::Workdir { path: path.to_owned() }),
    }
}

fn check_hostname(name: &str) -> Result<(), SpecError> {
    let valid = name.len() <= HOSTNAME_MOST && name.bytes().all(|b| b.is_ascii_graphic());
    if valid { Ok(()) } else { Err(SpecError::Hostname { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{SecurityOptions, parse};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn options() -> RunOptions {
        RunOptions { args: vec!["sh".into()], ..RunOptions::default() }
    }

    #[test]
    fn the_default_container_is_docker_s() {
        let spec = options().to_spec(ID).expect("valid");
        assert_eq!(spec.hostname().as_deref(), Some("0123456789ab"));
        let process = spec.process().as_ref().expect("a process");
        assert_eq!(process.env().clone().expect("variables"), [DEFAULT_PATH, "HOSTNAME=0123456789ab"]);
        assert_eq!(process.cwd().to_str(), Some("/"));
        assert_eq!(process.no_new_privileges(), Some(false));
        assert!(process.rlimits().is_none());
        let sets = process.capabilities().as_ref().expect("capabilities");
        assert_eq!(sets.bounding().as_ref().map(std::collections::HashSet::len), Some(14));
        assert!(sets.ambient().is_none() && sets.inheritable().is_none());
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.namespaces().as_ref().map(Vec::len), Some(6));
        assert!(linux.seccomp().is_some());
        assert!(linux.masked_paths().as_ref().is_some_and(|p| p.iter().any(|p| p == "/proc/kcore")));
        assert!(linux.resources().as_ref().is_some_and(|r| r.memory().is_none() && r.cpu().is_none()));
    }

    #[test]
    fn it_survives_the_way_to_the_guest_as_json() {
        let spec = options().to_spec(ID).expect("valid");
        let text = serde_json::to_string(&spec).expect("encodes");
        assert_eq!(serde_json::from_str::<Spec>(&text).expect("decodes"), spec);
    }

    #[test]
    fn privileged_lifts_what_docker_lifts() {
        let spec = RunOptions { privileged: true, ..options() }.to_spec(ID).expect("valid");
        let linux = spec.linux().as_ref().expect("linux");
        assert!(linux.seccomp().is_none() && linux.masked_paths().is_none() && linux.readonly_paths().is_none());
        let named = SecurityOptions {
            seccomp: SeccompChoice::Profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#.into()),
            ..SecurityOptions::default()
        };
        let spec = RunOptions { privileged: true, security: named, ..options() }.to_spec(ID).expect("valid");
        assert!(spec.linux().as_ref().is_some_and(|l| l.seccomp().is_some()));
    }

    #[test]
    fn flags_reach_the_process() {
        let all = RunOptions {
            tty: true,
            read_only: true,
            env: vec!["TERM=dumb".into(), "A=1".into(), "HOSTNAME".into()],
            hostname: Some("box".into()),
            workdir: Some("/srv".into()),
            ulimits: vec![parse::ulimit("nofile=10").expect("parses")],
            security: SecurityOptions { no_new_privileges: true, unconfined_paths: true, ..SecurityOptions::default() },
            ..options()
        };
        let spec = all.to_spec(ID).expect("valid");
        let process = spec.process().as_ref().expect("a process");
        assert_eq!(process.env().clone().expect("variables"), [DEFAULT_PATH, "TERM=dumb", "A=1"]);
        assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
        assert_eq!(process.cwd().to_str(), Some("/srv"));
        assert_eq!(process.rlimits().as_ref().map(Vec::len), Some(1));
        assert_eq!(spec.root().as_ref().and_then(Root::readonly), Some(true));
        assert!(spec.linux().as_ref().is_some_and(|l| l.masked_paths().is_none()));
    }

    #[test]
    fn user_and_time_namespaces_come_when_asked_for() {
        let id_maps =
            crate::spec::IdMaps::of(Some(crate::spec::UserNamespace::Auto { size: 5 }), &[], &[]).expect("valid");
        let time_offsets = vec![parse::time_offset("boottime=-3").expect("parses")];
        let spec = RunOptions { id_maps, time_offsets, ..options() }.to_spec(ID).expect("valid");
        let linux = spec.linux().as_ref().expect("linux");
        let types: Vec<_> = linux.namespaces().iter().flatten().map(LinuxNamespace::typ).collect();
        assert_eq!(types[6..], [LinuxNamespaceType::User, LinuxNamespaceType::Time]);
        let mapping = linux.gid_mappings().as_ref().expect("mappings")[0];
        assert_eq!((mapping.container_id(), mapping.host_id(), mapping.size()), (0, 100_000, 5));
        assert_eq!(linux.time_offsets().as_ref().expect("offsets")["boottime"].secs(), Some(-3));
    }

    #[test]
    fn nonsense_is_refused() {
        let invalid = |change: &dyn Fn(&mut RunOptions)| {
            let mut options = options();
            change(&mut options);
            options.to_spec(ID).expect_err("invalid").to_string()
        };
        assert!(invalid(&|o| o.args.clear()).contains("no command"));
        assert!(invalid(&|o| o.workdir = Some("srv".into())).contains("absolute path"));
        assert!(invalid(&|o| o.hostname = Some("a b".into())).contains("invalid hostname"));
        assert!(invalid(&|o| o.hostname = Some("a".repeat(65))).contains("invalid hostname"));
        assert!(invalid(&|o| drop(o.sysctls.insert("kernel.panic".into(), "1".into()))).contains("not allowed"));
        assert!(invalid(&|o| drop(o.sysctls.insert("net./../kernel".into(), "1".into()))).contains("not allowed"));
    }

    #[test]
    fn sysctls_of_namespaces_are_taken() {
        let mut options = options();
        options.sysctls.insert("net.ipv4.ping_group_range".into(), "1 0".into());
        options.sysctls.insert("kernel.shmmax".into(), "1".into());
        let spec = options.to_spec(ID).expect("valid");
        let sysctls = spec.linux().as_ref().and_then(|l| l.sysctl().clone()).expect("sysctls");
        assert_eq!(sysctls["net.ipv4.ping_group_range"], "1 0");
        assert_eq!(sysctls["net.ipv4.ip_unprivileged_port_start"], "0");
        assert_eq!(sysctls["kernel.shmmax"], "1");
    }
}
