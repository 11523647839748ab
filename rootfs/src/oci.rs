//! Writer of an image archive that is an OCI image layout and a docker archive at once.
//!
//! OCI image layout 1.0 (`oci-layout`, `index.json`, `blobs/`), and docker's `manifest.json` naming the same blobs, so
//! that `dewar load`, `docker load`, `podman load` and `skopeo` all read it. Layers are uncompressed: a layer's digest is
//! its diff id, and the bytes do not hang on a compressor's version.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What becomes of an image besides its files.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// Repository and tag without a registry, `name:tag`.
    pub name: String,
    pub env: Vec<String>,
    pub cmd: Vec<String>,
    /// Seconds since the epoch, shown as the image's age.
    pub created: u64,
    pub history: String,
}

/// A file to go into a layer. Owners are always root.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative, without a leading slash.
    pub path: String,
    pub mode: u32,
    pub kind: EntryKind,
}

#[derive(Debug, Clone)]
pub enum EntryKind {
    Dir,
    File(Vec<u8>),
    Symlink(String),
}

impl Entry {
    pub fn dir(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, kind: EntryKind::Dir }
    }

    pub fn file(path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode, kind: EntryKind::File(data.into()) }
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, kind: EntryKind::Symlink(target.to_owned()) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: usize,
}

impl<'a> Descriptor<'a> {
    fn of(media_type: &'a str, blob: &[u8]) -> Self {
        Self { media_type, digest: format!("sha256:{}", hex_digest(blob)), size: blob.len() }
    }
}

/// Writes the entries, in their order, as one layer.
pub fn layer(entries: &[Entry], mtime: u64) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        append(&mut builder, entry, mtime)?;
    }
    builder.into_inner()
}

/// Writes the archive of an image with the given layers, lowest first.
pub fn write_archive<W: Write>(config: &ImageConfig, layers: &[Vec<u8>], out: W) -> io::Result<W> {
    let config_blob = config_blob(config, layers)?;
    let manifest_blob = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": Descriptor::of(MEDIA_CONFIG, &config_blob),
        "layers": layers.iter().map(|layer| Descriptor::of(MEDIA_LAYER, layer)).collect::<Vec<_>>(),
    }))?;
    let mut manifest_descriptor = serde_json::to_value(Descriptor::of(MEDIA_MANIFEST, &manifest_blob))?;
    manifest_descriptor["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    manifest_descriptor["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{}", config.name),
        "org.opencontainers.image.ref.name": config.name,
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_INDEX,
        "manifests": [manifest_descriptor],
    }))?;
    let docker_manifest = serde_json::to_vec(&json!([{
        "Config": blob_path(&config_blob),
        "RepoTags": [config.name],
        "Layers": layers.iter().map(|layer| blob_path(layer)).collect::<Vec<_>>(),
    }]))?;

    let mut builder = tar::Builder::new(out);
    let mut put = |path: &str, data: &[u8]| append(&mut builder, &Entry::file(path, 0o644, data), config.created);
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put("index.json", &index)?;
    put("manifest.json", &docker_manifest)?;
    put(&blob_path(&manifest_blob), &manifest_blob)?;
    put(&blob_path(&config_blob), &config_blob)?;
    for layer in layers {
        put(&blob_path(layer), layer)?;
    }
    builder.into_inner()
}

fn config_blob(config: &ImageConfig, layers: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let created = rfc3339(config.created);
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex_digest(layer))).collect();
    Ok(serde_json::to_vec(&json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": config.env, "Cmd": config.cmd },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": layers.iter().map(|_| json!({ "created": created, "created_by": config.history })).collect::<Vec<_>>(),
    }))?)
}

fn append<W: Write>(builder: &mut tar::Builder<W>, entry: &Entry, mtime: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match &entry.kind {
        EntryKind::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, format!("{}/", entry.path), io::empty())
        }
        EntryKind::File(data) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, &entry.path, data.as_slice())
        }
        EntryKind::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, &entry.path, target)
        }
    }
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", hex_digest(blob))
}

fn hex_digest(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `seconds` since the epoch as RFC 3339 in UTC (the proleptic Gregorian calendar, without leap seconds).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let mut day = days;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    fn config() -> ImageConfig {
        ImageConfig {
            name: "busybox:latest".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
            cmd: vec!["sh".to_owned()],
            created: 1_700_000_000,
            history: "test".to_owned(),
        }
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            files.insert(path, data);
        }
        files
    }

    #[test]
    fn every_reference_leads_to_a_blob_with_that_digest_and_size() {
        let layers = [layer(&[Entry::dir("a", 0o755)], 1).unwrap(), layer(&[Entry::file("b", 0o644, "b")], 1).unwrap()];
        let files = unpack(&write_archive(&config(), &layers, Vec::new()).unwrap());

        let resolve = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let blob = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(hex_digest(blob), digest);
            assert_eq!(descriptor["size"], blob.len());
            blob.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value = serde_json::from_slice(&resolve(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&resolve(&manifest["config"])).unwrap();
        let digests: Vec<&Value> =
            manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["digest"]).collect();
        assert_eq!(resolve(&manifest["layers"][1]), layers[1]);
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().iter().collect::<Vec<_>>(), digests);

        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(docker[0]["RepoTags"][0], "busybox:latest");
        assert_eq!(files[docker[0]["Layers"][0].as_str().unwrap()], layers[0]);
        assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let make = || write_archive(&config(), &[layer(&[Entry::symlink("x", "/y")], 7).unwrap()], Vec::new()).unwrap();
        assert_eq!(make(), make());
    }

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
