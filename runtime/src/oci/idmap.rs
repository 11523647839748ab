//! Bind mounts with id mappings (`mounts[].uidMappings`, options `idmap` and `ridmap`): the host's kernel maps them, on the
//! copy of the mount that is shared; the guest sees the mapped owners. podman writes the mappings of a volume into the option,
//! as crun reads them: `idmap=uids=0-1-10#10-11-10;gids=@0-100-10` (crun(1)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind};

/// Ids of a mount's files, and what they are seen as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdMaps {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
    /// Mounts below are mapped too.
    recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdRange {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

const KEYS: [&str; 2] = ["uidMappings", "gidMappings"];

impl IdMaps {
    /// Takes the mappings and their options out of a mount; `mappings` are those of the container's user namespace, which an
    /// `idmap` without its own means (config.md, "Mounts").
    pub(super) fn take(mount: &mut Value, mappings: &Value) -> Result<Option<Self>, Error> {
        let target = mount.get("destination").and_then(Value::as_str).unwrap_or_default().to_owned();
        let invalid = |text: &str| Error::new(ErrorKind::Invalid, format!("the mount on {target} {text}"));
        let Some(object) = mount.as_object_mut() else { return Ok(None) };
        let (mut asked, mut recursive) = (None, false);
        if let Some(options) = object.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|option| {
                let option = option.as_str().unwrap_or_default();
                let (name, inline) = option.split_once('=').unwrap_or((option, ""));
                let is_one = matches!(name, "idmap" | "ridmap");
                if is_one {
                    asked = Some(inline.to_owned());
                    recursive |= name == "ridmap";
                }
                !is_one
            });
        }
        let own = KEYS.map(|key| object.remove(key).filter(|list| !is_empty(list)));
        let containers = KEYS.map(|key| mappings.get(key).cloned().unwrap_or_default());
        let lists = match (own, asked.as_deref()) {
            ([None, None], None) => return Ok(None),
            ([None, None], Some("")) => containers,
            ([None, None], Some(inline)) => {
                let [users, groups] = inline_maps(inline, containers)
                    .ok_or_else(|| invalid(&format!("has the option idmap={inline}, which maps nothing")))?;
                return Ok(Some(Self { users, groups, recursive }));
            }
            ([Some(users), Some(groups)], _) => [users, groups],
            _ => return Err(invalid("maps users or groups alone: give uidMappings and gidMappings")),
        };
        if lists.iter().any(is_empty) {
            return Err(invalid("has the option idmap, but neither mappings nor a user namespace to take them from"));
        }
        let [users, groups] = lists.map(serde_json::from_value::<Vec<IdRange>>);
        let (Ok(users), Ok(groups)) = (users, groups) else { return Err(invalid("has mappings of a wrong shape")) };
        Ok(Some(Self { users, groups, recursive }))
    }

    /// Maps the ids of a mount that is attached nowhere.
    ///
    /// # Errors
    /// `EINVAL` when its filesystem cannot be mapped, `EPERM` for who may not.
    pub(super) fn apply(&self, tree: &OwnedFd) -> io::Result<()> {
        let namespace = self.namespace()?;
        // SAFETY: the structure is plain numbers, all of which may be zero.
        let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
        attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::try_from(namespace.as_raw_fd()).unwrap_or_default();
        let flags = libc::AT_EMPTY_PATH | if self.recursive { libc::AT_RECURSIVE } else { 0 };
        let (tree, size) = (tree.as_fd().as_raw_fd(), size_of::<libc::mount_attr>());
        // SAFETY: an open descriptor, a string that ends with a zero byte, and a structure of the size that is given.
        let done =
            unsafe { libc::syscall(libc::SYS_mount_setattr, tree, c"".as_ptr(), flags, &raw const attributes, size) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A user namespace with these mappings, in which nobody is.
    fn namespace(&self) -> io::Result<OwnedFd> {
        let (asked, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the child makes system calls and allocates nothing.
        let child = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: the only thread there is.
                let code = match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
                    0 => 0,
                    _ => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
                };
                let _ = rustix::io::write(&told, &code.to_ne_bytes());
                loop {
                    // SAFETY: takes nothing; the parent ends this process.
                    unsafe { libc::pause() };
                }
            }
            child => child,
        };
        drop(told);
        let opened = (|| {
            let mut code = [0; 4];
            rustix::io::read(&asked, &mut code)?;
            match i32::from_ne_bytes(code) {
                0 => {}
                code => return Err(io::Error::from_raw_os_error(code)),
            }
            fs::write(format!("/proc/{child}/uid_map"), lines(&self.users))?;
            fs::write(format!("/proc/{child}/gid_map"), lines(&self.groups))?;
            fs::File::open(format!("/proc/{child}/ns/user")).map(OwnedFd::from)
        })();
        if let Some(pid) = Pid::from_raw(child) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        opened
    }
}

/// The mappings of users and groups in a mount option. Those that begin with `@` end in the container's user namespace, the
/// others in the host's.
fn inline_maps(option: &str, containers: [Value; 2]) -> Option<[Vec<IdRange>; 2]> {
    let [users, groups] = containers.map(|list| serde_json::from_value::<Vec<IdRange>>(list).unwrap_or_default());
    let (mut uids, mut gids) = (None, None);
    for part in option.split(';') {
        match part.split_once('=')? {
            ("uids", ranges) => uids = ranges.split('#').map(|range| inline_range(range, &users)).collect(),
            ("gids", ranges) => gids = ranges.split('#').map(|range| inline_range(range, &groups)).collect(),
            _ => return None,
        }
    }
    Some([uids?, gids?])
}

fn inline_range(text: &str, namespace: &[IdRange]) -> Option<IdRange> {
    let relative = text.strip_prefix('@');
    let mut numbers = relative.unwrap_or(text).split('-').map(|number| number.parse::<u32>().ok());
    let (container_id, mut host_id, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if numbers.next().is_some() {
        return None;
    }
    if relative.is_some() {
        let within = |range: &IdRange| host_id.checked_sub(range.container_id).filter(|offset| *offset < range.size);
        let moved = |range: &IdRange| within(range).and_then(|offset| range.host_id.checked_add(offset));
        host_id = namespace.iter().find_map(moved)?;
    }
    Some(IdRange { container_id, host_id, size })
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// As user_namespaces(7) wants them.
fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.size)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(container: u32, host: u32) -> Value {
        json!([{"containerID": container, "hostID": host, "size": 10}])
    }

    #[test]
    fn mappings_are_taken_from_the_mount_or_from_the_container() {
        let linux = json!({"uidMappings": range(0, 100), "gidMappings": range(0, 200)});
        let mut plain = json!({"destination": "/a", "options": ["rbind", "ro"]});
        assert_eq!(IdMaps::take(&mut plain, &linux).unwrap(), None);
        assert_eq!(plain["options"], json!(["rbind", "ro"]));

        let mut own =
            json!({"destination": "/a", "uidMappings": range(5, 6), "gidMappings": range(7, 8), "options": ["bind"]});
        let maps = IdMaps::take(&mut own, &linux).unwrap().unwrap();
        assert_eq!((lines(&maps.users), lines(&maps.groups)), ("5 6 10\n".to_owned(), "7 8 10\n".to_owned()));
        assert_eq!(own, json!({"destination": "/a", "options": ["bind"]}));

        let mut containers = json!({"destination": "/a", "options": ["rbind", "ridmap"]});
        let maps = IdMaps::take(&mut containers, &linux).unwrap().unwrap();
        assert!(maps.recursive);
        assert_eq!((lines(&maps.users), containers["options"].clone()), ("0 100 10\n".to_owned(), json!(["rbind"])));
    }

    #[test]
    fn a_mount_option_may_hold_the_mappings() {
        let linux = json!({"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1},
            {"containerID": 1, "hostID": 2, "size": 1000}]});
        let mut mount = json!({"destination": "/a", "options": ["bind", "idmap=uids=0-1-10#@1-3-10;gids=0-100-5"]});
        let maps = IdMaps::take(&mut mount, &linux).unwrap().unwrap();
        assert_eq!((lines(&maps.users), lines(&maps.groups)), ("0 1 10\n1 4 10\n".to_owned(), "0 100 5\n".to_owned()));
        assert_eq!(mount["options"], json!(["bind"]));
        for wrong in
            ["x", "uids=0-1-1", "uids=0-1-1;gids=0-1", "uids=0-1-1;gids=@9999-9999-1", "uids=0-1-1;gids=0-1-1-1"]
        {
            let mut mount = json!({"destination": "/a", "options": [format!("idmap={wrong}")]});
            let text = IdMaps::take(&mut mount, &linux).unwrap_err().to_string();
            assert!(text.contains("maps nothing"), "{wrong}: {text}");
        }
    }

    #[test]
    fn half_of_the_mappings_or_none_is_refused() {
        let take = |mut mount: Value| IdMaps::take(&mut mount, &Value::Null).unwrap_err().to_string();
        assert!(take(json!({"destination": "/a", "uidMappings": range(0, 1)})).contains("users or groups alone"));
        assert!(take(json!({"destination": "/a", "options": ["idmap"]})).contains("neither mappings"));
        let odd = json!({"destination": "/a", "uidMappings": ["x"], "gidMappings": range(0, 1)});
        assert!(take(odd).contains("wrong shape"));
    }
}
