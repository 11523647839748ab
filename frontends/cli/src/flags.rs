//! The flags that `run` and `create` share, and what they ask of the runtime.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dewar_runtime::container::Writable;
use dewar_runtime::engine::EngineChoice;
use dewar_runtime::spec::{
    IdMaps, IdRange, RunOptions, SecurityOptions, SpecError, TimeOffset, Tmpfs, Ulimit, UserNamespace, parse,
};

const DEFAULT_SCRATCH: u64 = 10 << 30;
const DEFAULT_TMPFS_SCRATCH: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    Missing,
    Never,
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scratch {
    Disk,
    Tmpfs,
}

#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Keep the container's standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Name of the container
    #[arg(long)]
    pub name: Option<String>,
    /// Set a variable; a bare NAME passes the caller's on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::env)]
    pub env: Vec<String>,
    /// Set variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run as this user, by name or id
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Program to run instead of the image's own
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Set metadata on the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Most memory the container may use (such as 512m or 2g)
    #[arg(short, long, value_name = "BYTES", value_parser = parse::size)]
    pub memory: Option<u64>,
    /// Most memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = parse::swap_size, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Most CPU time, in CPUs (such as 1.5)
    #[arg(long, value_name = "NUMBER", value_parser = parse::cpus)]
    pub cpus: Option<u64>,
    /// CPU time relative to other containers in the same machine
    #[arg(short, long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,
    /// CPUs of the machine the container may run on (such as 0-2,4)
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Give the container all capabilities, and no seccomp filter or hidden paths, within its machine
    #[arg(long)]
    pub privileged: bool,
    /// Mount the root filesystem read-only
    #[arg(long)]
    pub read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = parse::tmpfs)]
    pub tmpfs: Vec<Tmpfs>,
    /// Set a resource limit
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", value_parser = parse::ulimit)]
    pub ulimit: Vec<Ulimit>,
    /// no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    pub shm_size: Option<u64>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Network of the container: only `none` so far
    #[arg(long, alias = "net", value_name = "NETWORK", default_value = "none", value_parser = network)]
    pub network: String,
    /// User namespace: host (none), auto or auto:size=N (ids that are nobody's in the machine)
    #[arg(long, value_name = "MODE", value_parser = parse::user_namespace)]
    pub userns: Option<UserNamespace>,
    /// User namespace with these user ids: those in the container, those in the machine, how many
    #[arg(long, value_name = "CONTAINER:MACHINE:SIZE", value_parser = parse::id_map)]
    pub uidmap: Vec<IdRange>,
    /// The same for group ids; without it they follow the user ids
    #[arg(long, value_name = "CONTAINER:MACHINE:SIZE", value_parser = parse::id_map)]
    pub gidmap: Vec<IdRange>,
    /// Time namespace with a clock that is ahead: monotonic or boottime
    #[arg(long, value_name = "CLOCK=SECONDS", value_parser = parse::time_offset)]
    pub time_offset: Vec<TimeOffset>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub stop_timeout: u32,
    /// When to pull the image
    #[arg(long, value_name = "WHEN", value_enum, default_value = "missing")]
    pub pull: PullPolicy,
    /// size=BYTES: the most that the writable layer may hold
    #[arg(long, value_name = "size=BYTES", value_parser = storage_size)]
    pub storage_opt: Option<u64>,
    /// Where the writable layer lies: a sparse disk, or the machine's memory
    #[arg(long, value_enum, default_value = "disk")]
    pub scratch: Scratch,
    /// What runs the machine: auto, kvm or qemu [env: DEWAR_ENGINE]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    pub engine: Option<EngineChoice>,
    /// Boot another guest kernel
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Image, and the command to run in it
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG]")]
    pub image_and_args: Vec<String>,
}

/// Answers a [`dewar_runtime::Error`] as clap wants errors: without its kind.
fn engine(text: &str) -> Result<EngineChoice, String> {
    text.parse().map_err(|e: dewar_runtime::Error| e.to_string())
}

fn network(text: &str) -> Result<String, String> {
    if text == "none" {
        return Ok(text.to_owned());
    }
    Err("containers have no network yet: only none can be given".into())
}

fn storage_size(text: &str) -> Result<u64, String> {
    let value = text.strip_prefix("size=").ok_or("the only storage option is size=BYTES")?;
    parse::size(value).map_err(|e| e.to_string())
}

impl ContainerFlags {
    pub fn image(&self) -> &str {
        self.image_and_args.first().map_or("", String::as_str)
    }

    pub fn engine(&self) -> Result<EngineChoice, dewar_runtime::Error> {
        self.engine.map_or_else(EngineChoice::from_env, Ok)
    }

    pub fn writable(&self) -> Writable {
        match self.scratch {
            Scratch::Disk => Writable::Disk { size: self.storage_opt.unwrap_or(DEFAULT_SCRATCH) },
            Scratch::Tmpfs => Writable::Tmpfs { size: self.storage_opt.unwrap_or(DEFAULT_TMPFS_SCRATCH) },
        }
    }

    /// What was asked for, before the image completes it.
    pub fn options(&self) -> anyhow::Result<RunOptions> {
        let mut env = Vec::new();
        for path in &self.env_file {
            let content = std::fs::read(path).map_err(|e| {
                anyhow::Error::from(e).context(format!("cannot read the --env-file {}", path.display()))
            })?;
            env.extend(parse::env_file(&content, |name| std::env::var(name).ok()).map_err(dewar_runtime::Error::from)?);
        }
        env.extend(self.env.iter().cloned());
        let security = SecurityOptions::parse(&self.security_opt).map_err(dewar_runtime::Error::from)?;
        let entrypoint = self.entrypoint.as_ref();
        Ok(RunOptions {
            entrypoint: entrypoint.map(|e| if e.is_empty() { Vec::new() } else { vec![e.clone()] }),
            args: self.image_and_args.iter().skip(1).cloned().collect(),
            env,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            tty: self.tty,
            interactive: self.interactive,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            read_only: self.read_only,
            tmpfs: self.tmpfs.clone(),
            ulimits: self.ulimit.clone(),
            security,
            init: self.init,
            memory: self.memory.unwrap_or(0),
            memory_swap: self.memory_swap.unwrap_or(0),
            nano_cpus: self.cpus.unwrap_or(0),
            cpu_shares: self.cpu_shares.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone(),
            pids_limit: self.pids_limit.unwrap_or(0),
            labels: self.label.iter().map(|l| parse::key_value(l)).collect(),
            shm_size: self.shm_size.unwrap_or(0),
            sysctls: self.sysctl.iter().map(|s| parse::key_value(s)).collect(),
            id_maps: IdMaps::of(self.userns, &self.uidmap, &self.gidmap).map_err(dewar_runtime::Error::from)?,
            time_offsets: self.time_offset.clone(),
            stop_signal: self.stop_signal.clone(),
        })
    }

    /// How many CPUs the machine needs for `--cpuset-cpus`.
    pub fn cpus_named(&self) -> Result<Option<u64>, SpecError> {
        self.cpuset_cpus.as_deref().filter(|c| !c.is_empty()).map(parse::cpuset).transpose()
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn flags(line: &str) -> ContainerFlags {
        let command = crate::cli::command();
        let args = ["dewar", "create"].into_iter().chain(line.split(' '));
        let matches = command.try_get_matches_from(args).expect("parses");
        let (_, matches) = matches.subcommand().expect("a verb");
        ContainerFlags::from_arg_matches(matches).expect("fits")
    }

    fn options(line: &str) -> RunOptions {
        flags(line).options().expect("valid")
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        let parsed = flags("-it --init=false busybox sh -c --rm -i --help");
        assert!(parsed.tty && parsed.interactive);
        assert_eq!(parsed.image(), "busybox");
        assert_eq!(parsed.options().expect("valid").args, ["sh", "-c", "--rm", "-i", "--help"]);
        assert!(!flags("-t=false busybox").tty);
        assert_eq!(options("--init=true -- busybox -x").args, ["-x"]);
    }

    #[test]
    fn flags_become_options() {
        let all = options(
            "-e A=1 --env B= -w /srv -u app:staff -h box --entrypoint /bin/x -l a=b -l c -m 64m --memory-swap -1 --cpus 1.5 \
             -c 512 --cpuset-cpus 0-1 --pids-limit -1 --cap-add NET_ADMIN --cap-drop ALL --privileged --read-only \
             --tmpfs /run:size=1m --ulimit nofile=5 --security-opt no-new-privileges --init --shm-size 1m \
             --sysctl net.a=1 --stop-signal INT --network none busybox",
        );
        assert_eq!(all.env, ["A=1", "B="]);
        assert_eq!((all.memory, all.memory_swap, all.nano_cpus), (64 << 20, -1, 1_500_000_000));
        assert_eq!((all.cpu_shares, all.pids_limit, all.shm_size), (512, -1, 1 << 20));
        assert_eq!(all.entrypoint, Some(vec!["/bin/x".into()]));
        assert_eq!((all.labels["a"].as_str(), all.labels["c"].as_str()), ("b", ""));
        assert_eq!(all.sysctls["net.a"], "1");
        assert!(all.privileged && all.read_only && all.init && all.security.no_new_privileges);
        assert_eq!((all.tmpfs.len(), all.ulimits.len()), (1, 1));
        assert_eq!(all.user.as_deref(), Some("app:staff"));
        assert!(all.to_spec("0123456789abcdef").is_ok());
        assert_eq!(options("busybox"), RunOptions { ..RunOptions::default() });
    }

    #[test]
    fn namespaces_that_are_asked_for() {
        let asked = options("--userns auto --time-offset monotonic=5 --time-offset boottime=-1 busybox");
        assert_eq!(asked.id_maps.expect("a user namespace").users[0].size, 65_536);
        assert_eq!(asked.time_offsets.iter().map(|o| o.seconds).collect::<Vec<_>>(), [5, -1]);
        let asked = options("--uidmap 0:1000:10 --gidmap 0:5:1 --gidmap 1:50:2 busybox").id_maps.expect("one");
        assert_eq!((asked.users.len(), asked.groups.len()), (1, 2));
        assert!(options("--userns host busybox").id_maps.is_none());
        assert!(flags("--userns auto --uidmap 0:1:1 busybox").options().is_err());
    }

    #[test]
    fn an_empty_entry_point_sets_the_image_s_aside() {
        let command = crate::cli::command();
        let matches = command.try_get_matches_from(["dewar", "create", "--entrypoint", "", "i", "x"]).expect("parses");
        let (_, matches) = matches.subcommand().expect("a verb");
        let flags = ContainerFlags::from_arg_matches(matches).expect("fits");
        assert_eq!(flags.options().expect("valid").entrypoint, Some(Vec::new()));
    }

    #[test]
    fn the_writable_layer() {
        assert_eq!(flags("busybox").writable(), Writable::Disk { size: 10 << 30 });
        assert_eq!(flags("--storage-opt size=1g busybox").writable(), Writable::Disk { size: 1 << 30 });
        assert_eq!(flags("--scratch tmpfs busybox").writable(), Writable::Tmpfs { size: 256 << 20 });
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for line in [
            "--network bridge b",
            "--userns keep-id b",
            "--uidmap 1 b",
            "--time-offset realtime=1 b",
            "--storage-opt bogus=1 b",
            "--engine xen b",
            "-e =x b",
            "--cpus x b",
        ] {
            let args = ["dewar", "create"].into_iter().chain(line.split(' '));
            assert!(crate::cli::command().try_get_matches_from(args).is_err(), "{line}");
        }
    }

    #[test]
    fn a_file_of_variables_comes_before_single_ones() {
        let dir = std::env::temp_dir().join(format!("dewar-flags-{}", std::process::id()));
        std::fs::write(&dir, "A=file\nB=file\n").expect("writes");
        let text = format!("-e A=flag --env-file {} busybox", dir.display());
        let parsed = options(&text);
        std::fs::remove_file(&dir).expect("removes");
        assert_eq!(parsed.env, ["A=file", "B=file", "A=flag"]);
        assert!(flags("--env-file /nowhere/at/all busybox").options().is_err());
    }
}
