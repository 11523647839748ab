//! `/dev/shm` as engines make it: a tmpfs of the host's, named `shm`, that they bind into a container or into all of a pod.
//!
//! Shared by virtio-fs it would be memory of nobody's limit, and a mapping larger than it would lose what is written there
//! instead of a signal. So the guest has a tmpfs of the same size and owner in its place, which containers with the same
//! source share. The host's own `/dev/shm` stays what it is: somebody asked for the host's files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dewar_protocol::MEMORY_DIR;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Error, ResultExt};

/// What an engine has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedMemory {
    /// Bytes; none for as much as there is.
    pub size: u64,
    source: String,
    options: Vec<String>,
}

impl SharedMemory {
    /// What lies at an absolute path without links, when it is that.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, Error> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "Cannot read the mounts".into())?;
        if !is_an_engine_s(&mounts, path) {
            return Ok(None);
        }
        let failed = || format!("Cannot look at {}", path.display());
        let found = rustix::fs::statfs(path).context(failed)?;
        let owner = fs::metadata(path).context(failed)?;
        let size = found.f_blocks.saturating_mul(u64::try_from(found.f_bsize).unwrap_or_default());
        let (mode, uid, gid) = (owner.mode() & 0o7777, owner.uid(), owner.gid());
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Self {
            size,
            source: format!("{MEMORY_DIR}/{name}"),
            options: vec![format!("size={size}"), format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")],
        }))
    }

    /// Puts it in the place of the bind mount.
    pub(super) fn replace(&self, mount: &mut Value) {
        super::bundle::own_filesystem(mount, "tmpfs");
        mount["source"] = Value::String(self.source.clone());
        let options = self.options.iter().cloned().map(Value::String);
        match mount.get_mut("options").and_then(Value::as_array_mut) {
            Some(list) => list.extend(options),
            None => mount["options"] = options.collect(),
        }
    }
}

/// From the text of mountinfo (proc(5)): whether the last mount at this path is a whole tmpfs by the name of `shm`.
fn is_an_engine_s(mountinfo: &str, path: &Path) -> bool {
    let Some(path) = path.to_str().filter(|path| *path != "/dev/shm") else { return false };
    let escaped = path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
    let mut last = mountinfo.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let (mut head, mut tail) = (head.split(' ').skip(3), tail.split(' '));
        let (root, at) = (head.next()?, head.next()?);
        (at == escaped).then(|| root == "/" && tail.next() == Some("tmpfs") && tail.next() == Some("shm"))
    });
    last.next_back().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        24 22 0:21 / /dev/shm rw - tmpfs shm rw\n\
        30 22 0:40 / /run/box/shm rw,nosuid - tmpfs shm rw,size=64000k\n\
        31 22 0:41 / /run/user/shm rw,nosuid - tmpfs tmpfs rw\n\
        32 22 0:42 /part /run/part rw - tmpfs shm rw\n\
        33 22 0:43 / /run/two\\040words/shm rw shared:1 - tmpfs shm rw\n\
        34 22 0:44 / /run/over/shm rw - tmpfs shm rw\n\
        35 34 0:45 / /run/over/shm rw - ext4 /dev/vdb rw\n";

    #[test]
    fn only_what_an_engine_makes_is_replaced() {
        let is = |path: &str| is_an_engine_s(MOUNTS, Path::new(path));
        assert!(is("/run/box/shm") && is("/run/two words/shm"));
        for other in ["/dev/shm", "/run/box", "/run/box/shm/a", "/run/user/shm", "/run/part", "/run/over/shm", "/"] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_bind_mount_becomes_memory_of_the_guest() {
        let memory = SharedMemory { size: 5, source: "/run/dewar/memory/a".into(), options: vec!["size=5".into()] };
        let mut mount = serde_json::json!({"destination": "/dev/shm", "type": "bind", "source": "/run/box/shm",
            "options": ["bind", "nosuid"]});
        memory.replace(&mut mount);
        let expected = serde_json::json!({"destination": "/dev/shm", "type": "tmpfs", "source": "/run/dewar/memory/a",
            "options": ["nosuid", "size=5"]});
        assert_eq!(mount, expected);
        let mut bare = serde_json::json!({"destination": "/dev/shm", "type": "bind", "source": "/run/box/shm"});
        memory.replace(&mut bare);
        assert_eq!(bare["options"], serde_json::json!(["size=5"]));
    }
}
