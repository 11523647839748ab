//! `exec`'s flags as an OCI process.

use std::fs;

use dewar_runtime::oci::{ExecOptions, Oci};
use dewar_runtime::{Error, ErrorKind, ResultExt};
use serde_json::{Value, json};

use crate::cli::Exec;

pub fn run(oci: &Oci, exec: Exec) -> Result<u8, Error> {
    if exec.preserve_fds > 0 {
        return Err(crate::commands::no_descriptors());
    }
    if let Some(group) = exec.cgroup.as_deref().filter(|group| group.contains(':')) {
        let text =
            format!("invalid --cgroup argument: {group}: the guest has cgroup v2, give a path without controllers");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let process = process(oci, &exec)?;
    let options = ExecOptions {
        process,
        console_socket: exec.console_socket,
        pid_file: exec.pid_file,
        detach: exec.detach,
        ignore_paused: exec.ignore_paused,
        cgroup: exec.cgroup,
    };
    oci.exec(&exec.id, &options)
}

fn process(oci: &Oci, exec: &Exec) -> Result<Value, Error> {
    let invalid = |text: String| Error::new(ErrorKind::Invalid, text);
    let mut process = match &exec.process {
        Some(path) => {
            let text = fs::read(path).kind(ErrorKind::Invalid, || format!("Cannot read {}", path.display()))?;
            serde_json::from_slice(&text).kind(ErrorKind::Invalid, || format!("{} does not parse", path.display()))?
        }
        None => oci.exec_template(&exec.id)?,
    };
    if exec.process.is_none() {
        if exec.command.is_empty() {
            return Err(invalid("process args cannot be empty".into()));
        }
        process["args"] = json!(exec.command);
    }
    if !process.is_object() {
        return Err(invalid("the process is not a JSON object".into()));
    }
    if process.get("user").is_none_or(Value::is_null) {
        process["user"] = json!({"uid": 0, "gid": 0});
    }
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    if exec.tty {
        process["terminal"] = json!(true);
    }
    if exec.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(label) = &exec.process_label {
        process["selinuxLabel"] = json!(label);
    }
    if let Some(profile) = &exec.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(user) = &exec.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let number =
            |text: &str| text.parse::<u32>().map_err(|_| invalid(format!("invalid user {user:?}: give UID[:GID]")));
        process["user"]["uid"] = json!(number(uid)?);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(number(gid)?);
        }
    }
    extend(&mut process, "/user", "additionalGids", exec.additional_gids.iter().map(|gid| json!(gid)));
    extend(&mut process, "", "env", exec.env.iter().map(|env| json!(env)));
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        if matches!(set, "inheritable" | "ambient") && process.pointer("/capabilities/ambient").is_none() {
            continue;
        }
        extend(&mut process, "/capabilities", set, exec.cap.iter().map(|cap| json!(capability(cap))));
    }
    Ok(process)
}

fn capability(name: &str) -> String {
    let name = name.to_uppercase();
    if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// Appends to a list of an object, which need not be there yet.
fn extend(value: &mut Value, parent: &str, name: &str, more: impl Iterator<Item = Value>) {
    let more: Vec<Value> = more.collect();
    if more.is_empty() {
        return;
    }
    let parent = parent.trim_start_matches('/');
    let object = if parent.is_empty() { value } else { &mut value[parent] };
    match &mut object[name] {
        Value::Array(list) => list.extend(more),
        other => *other = Value::Array(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_wherever_they_are() {
        let mut process = json!({"env": ["A=1"], "user": {"uid": 0}});
        extend(&mut process, "", "env", [json!("B=2")].into_iter());
        extend(&mut process, "/user", "additionalGids", [json!(5)].into_iter());
        assert_eq!(process, json!({"env": ["A=1", "B=2"], "user": {"uid": 0, "additionalGids": [5]}}));
        assert_eq!(capability("net_raw"), "CAP_NET_RAW");
    }
}
