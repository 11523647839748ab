//! Small images for tests.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::Digest;

/// A tar with these files.
pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A configuration as docker writes it, with fields that no specification knows and nulls.
pub(super) fn config(layers: &[Vec<u8>], comment: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "container": "0123",
        "docker_version": "20.10",
        "config": {
            "Hostname": "", "User": "1000", "AttachStdin": false, "ExposedPorts": null, "Tty": false,
            "Env": ["PATH=/bin"], "Cmd": ["sh"], "Image": comment, "Volumes": null, "WorkingDir": "/",
            "Entrypoint": null, "OnBuild": null, "Labels": null,
        },
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "test", "empty_layer": true}],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

/// An OCI layout under construction.
pub(super) struct Layout {
    pub(super) files: Vec<(String, Vec<u8>)>,
    manifests: Vec<Value>,
}

impl Layout {
    pub(super) fn new() -> Self {
        Self { files: vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())], manifests: vec![] }
    }

    pub(super) fn blob(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes);
        self.files.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    /// Adds a manifest; gives its descriptor.
    pub(super) fn manifest(&mut self, layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Value {
        let config = self.blob(&config(layers, "oci"), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> =
            layers.iter().map(|l| self.blob(&compress(l), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        self.blob(&serde_json::to_vec(&manifest).unwrap(), media_type)
    }

    /// Lists a descriptor in the index.
    pub(super) fn list(&mut self, mut descriptor: Value, name: Option<&str>, architecture: Option<&str>) {
        if let Some(name) = name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        if let Some(architecture) = architecture {
            descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        }
        self.manifests.push(descriptor);
    }

    pub(super) fn index(&mut self) -> Vec<u8> {
        serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": std::mem::take(&mut self.manifests)})).unwrap()
    }

    pub(super) fn finish(mut self) -> Vec<(String, Vec<u8>)> {
        let index = self.index();
        self.files.push(("index.json".into(), index));
        self.files
    }

    pub(super) fn finish_tar(self) -> Vec<u8> {
        let files = self.finish();
        tar(&files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect::<Vec<_>>())
    }
}

pub(super) fn write_folder(files: &[(String, Vec<u8>)], dir: &Path) {
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// A docker archive of one image.
pub(super) fn docker(layers: &[Vec<u8>], tags: &[&str], comment: &str) -> Vec<u8> {
    let config = config(layers, comment);
    let names: Vec<_> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut files = vec![("config.json", config.as_slice()), ("manifest.json", manifest.as_slice())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    tar(&files)
}
