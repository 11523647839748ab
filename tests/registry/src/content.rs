//! Images, and what a registry answers about them (OCI distribution specification 1.1).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Answer, Request};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry has.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// By `/v2/REPOSITORY/manifests/TAG` and the like.
    files: BTreeMap<String, (String, Vec<u8>)>,
}

/// The digest of some bytes as registries write it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl Content {
    /// An image for this machine of layers that are not compressed; its manifest's digest.
    pub fn image(&mut self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|l| digest(l)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(repository, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(repository, kind, layer)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest(repository, tag, &manifest)
    }

    /// A manifest under a tag and its digest, which is the answer.
    pub fn manifest(&mut self, repository: &str, tag: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = digest(&bytes);
        for name in [tag, &digest] {
            self.files.insert(format!("/v2/{repository}/manifests/{name}"), (MANIFEST.to_owned(), bytes.clone()));
        }
        digest
    }

    /// A blob; the answer describes it.
    pub fn blob(&mut self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let kind = "application/octet-stream".to_owned();
        self.files.insert(format!("/v2/{repository}/blobs/{digest}"), (kind, bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// What a registry answers.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Answer {
        let Some((kind, bytes)) = self.files.get(&request.path) else {
            let code = if request.path.contains("/blobs/") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
            return Answer::error(404, code, "not here");
        };
        let from = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let answer = match from.and_then(|from: usize| Some((from, bytes.get(from..)?))) {
            Some((from, rest)) => {
                let range = format!("bytes {from}-{}/{}", bytes.len().saturating_sub(1), bytes.len());
                Answer::new(206, rest).header("Content-Range", range)
            }
            None => Answer::new(200, bytes.as_slice()),
        };
        answer.header("Content-Type", kind)
    }
}
