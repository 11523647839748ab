//! A bind mount with id mappings shows its files as owned by whom the mappings say, and makes them so.

use std::os::unix::fs::{MetadataExt, chown};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let data = host.folder().join("data");
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("old"), "")?;
    for path in [&data, &data.join("old")] {
        chown(path, Some(1000), Some(1000))?;
    }
    let map = json!([{ "containerID": 1000, "hostID": 5000, "size": 10 }]);
    let mut bundle = host.bundle()?;
    bundle.push(
        "/mounts",
        json!({ "destination": "/data", "type": "bind", "source": data, "options": ["rbind", "idmap"],
            "uidMappings": map, "gidMappings": map }),
    );
    bundle.set("/process/user", json!({ "uid": 5000, "gid": 5000 }));
    let finished = bundle.script("stat -c %u:%g /data/old; touch /data/new; stat -c %u:%g /data/new").run()?;
    if finished.code != 0 && ["idmap", "map the ids", "mount_setattr"].iter().any(|word| finished.err.contains(word)) {
        return skip(format!("no id mapping of this host's filesystem: {}", finished.err.trim()));
    }
    let out = finished.success()?;
    ensure!(out == "5000:5000\n5000:5000\n", "{out}");
    let new = std::fs::metadata(data.join("new"))?;
    ensure!((new.uid(), new.gid()) == (1000, 1000), "{}:{} on the host", new.uid(), new.gid());
    Ok(())
}
