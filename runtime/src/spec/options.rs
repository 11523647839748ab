//! What a user asks for with `run`, `create` and their flags, and how an image's configuration completes it.

use std::collections::BTreeMap;

use oci_spec::image::Config;

use super::{IdMaps, SecurityOptions, SpecError, TimeOffset, Tmpfs, Ulimit};

/// Docker's `run` options. `Default` is what an absent flag means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `Some` and empty: the image's entrypoint is not to be used.
    pub entrypoint: Option<Vec<String>>,
    /// What follows the image's name.
    pub args: Vec<String>,
    /// `NAME=VALUE`; a bare `NAME` removes what the image sets. Later ones win.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    /// `user[:group]`, looked up in the guest.
    pub user: Option<String>,
    /// Absent: the first twelve digits of the id.
    pub hostname: Option<String>,
    pub tty: bool,
    pub interactive: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub read_only: bool,
    pub tmpfs: Vec<Tmpfs>,
    pub ulimits: Vec<Ulimit>,
    pub security: SecurityOptions,
    pub init: bool,
    /// Bytes; 0: no limit.
    pub memory: u64,
    /// Memory and swap together in bytes; 0: twice the memory; -1: no limit.
    pub memory_swap: i64,
    /// Billionths of a CPU; 0: no limit.
    pub nano_cpus: u64,
    /// 0: the kernel's default.
    pub cpu_shares: u64,
    pub cpuset_cpus: Option<String>,
    /// 0 and -1: no limit.
    pub pids_limit: i64,
    pub labels: BTreeMap<String, String>,
    /// Bytes; 0: 64 MiB.
    pub shm_size: u64,
    pub sysctls: BTreeMap<String, String>,
    /// A user namespace, when there is to be one.
    pub id_maps: Option<IdMaps>,
    /// A time namespace, when there are any.
    pub time_offsets: Vec<TimeOffset>,
    /// By name or number.
    pub stop_signal: Option<String>,
}

impl RunOptions {
    /// Fills in what the user left to the image.
    pub fn merge_image(&mut self, image: &Config) {
        if self.entrypoint.is_none() {
            if self.args.is_empty() {
                self.args = image.cmd().clone().unwrap_or_default();
            }
            self.entrypoint = image.entrypoint().clone().filter(|e| !e.is_empty());
        }
        for variable in image.env().iter().flatten() {
            if !self.env.iter().any(|own| env_name(own) == env_name(variable)) {
                self.env.push(variable.clone());
            }
        }
        let set = |own: &mut Option<String>, from: &Option<String>| {
            if own.is_none() {
                *own = from.clone().filter(|text| !text.is_empty());
            }
        };
        set(&mut self.workdir, image.working_dir());
        set(&mut self.user, image.user());
        set(&mut self.stop_signal, image.stop_signal());
        for (key, value) in image.labels().iter().flatten() {
            self.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }

    /// Program and arguments.
    ///
    /// # Errors
    /// [`SpecError::NoCommand`].
    pub fn command(&self) -> Result<Vec<String>, SpecError> {
        let command: Vec<String> = self.entrypoint.iter().flatten().chain(&self.args).cloned().collect();
        if command.is_empty() { Err(SpecError::NoCommand) } else { Ok(command) }
    }

    /// The signal that asks the container to stop.
    ///
    /// # Errors
    /// [`SpecError::Signal`].
    pub fn stop_signal(&self) -> Result<i32, SpecError> {
        self.stop_signal.as_deref().map_or(Ok(libc::SIGTERM), super::parse::signal)
    }

    /// The host name of a container with this id.
    #[must_use]
    pub fn hostname(&self, id: &str) -> String {
        match self.hostname.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => id.get(..12).unwrap_or(id).to_owned(),
        }
    }
}

/// The part before the first `=`.
pub(super) fn env_name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Lays `changes` over `base` as docker does: a variable keeps its place, a bare name removes it.
pub(super) fn lay_env_over(base: Vec<String>, changes: &[String]) -> Vec<String> {
    let mut all = base;
    for change in changes {
        let place = all.iter().position(|v| env_name(v) == env_name(change));
        match (place, change.contains('=')) {
            (Some(place), true) => all[place].clone_from(change),
            (Some(place), false) => {
                all.remove(place);
            }
            (None, true) => all.push(change.clone()),
            (None, false) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Config {
        let json = r#"{"Env":["PATH=/bin","A=image"],"Entrypoint":["/entry"],"Cmd":["cmd"],"WorkingDir":"/work",
            "User":"app","Labels":{"a":"image","b":"image"},"StopSignal":"SIGINT"}"#;
        serde_json::from_str(json).expect("a configuration")
    }

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|s| (*s).to_owned()).collect()
    }

    fn command(entrypoint: Option<&[&str]>, args: &[&str]) -> Option<Vec<String>> {
        let mut options =
            RunOptions { entrypoint: entrypoint.map(strings), args: strings(args), ..RunOptions::default() };
        options.merge_image(&image());
        options.command().ok()
    }

    #[test]
    fn an_entrypoint_of_the_user_sets_the_image_s_command_aside() {
        assert_eq!(command(None, &[]), Some(strings(&["/entry", "cmd"])));
        assert_eq!(command(None, &["own"]), Some(strings(&["/entry", "own"])));
        assert_eq!(command(Some(&["/mine"]), &[]), Some(strings(&["/mine"])));
        assert_eq!(command(Some(&[]), &["own"]), Some(strings(&["own"])));
        assert_eq!(command(Some(&[]), &[]), None);
    }

    #[test]
    fn the_user_s_choices_win_over_the_image_s() {
        let mut options = RunOptions {
            env: strings(&["A=own", "PATH"]),
            labels: BTreeMap::from([("a".into(), "own".into())]),
            user: Some("0".into()),
            ..RunOptions::default()
        };
        options.merge_image(&image());
        assert_eq!(options.env, strings(&["A=own", "PATH"]));
        assert_eq!(options.labels["a"], "own");
        assert_eq!(options.labels["b"], "image");
        assert_eq!(options.user.as_deref(), Some("0"));
        assert_eq!(options.workdir.as_deref(), Some("/work"));
        assert_eq!(options.stop_signal().expect("a signal"), libc::SIGINT);
    }

    #[test]
    fn a_bare_name_removes_a_variable_and_a_new_value_keeps_its_place() {
        let base = strings(&["A=1", "B=2", "C=3"]);
        let changes = strings(&["B=x", "A", "D", "E=5"]);
        assert_eq!(lay_env_over(base, &changes), strings(&["B=x", "C=3", "E=5"]));
    }

    #[test]
    fn the_host_name_is_the_short_id_unless_given() {
        let id = "0123456789abcdef";
        assert_eq!(RunOptions::default().hostname(id), "0123456789ab");
        let named = RunOptions { hostname: Some("box".into()), ..RunOptions::default() };
        assert_eq!(named.hostname(id), "box");
    }
}
