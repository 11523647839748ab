//! Images that cases make themselves: layers entry by entry, and OCI layouts around them, right or wrong.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::Host;

/// Longest name that fits into a header; others go before it.
const SHORT_NAME: usize = 100;

/// A layer's tar under construction. Names are taken as they are, however wrong.
pub struct Layer {
    builder: Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self { builder: Builder::new(Vec::new()) }
    }
}

impl Layer {
    /// # Errors
    /// Those of writing a tar, here and below.
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Result<Self> {
        self.entry(EntryType::Regular, name, header(mode)?, content)
    }

    pub fn directory(self, name: &str, mode: u32) -> Result<Self> {
        self.entry(EntryType::Directory, name, header(mode)?, &[])
    }

    pub fn symlink(self, name: &str, target: &str) -> Result<Self> {
        self.link(EntryType::Symlink, name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Result<Self> {
        self.link(EntryType::Link, name, target)
    }

    pub fn device(self, kind: EntryType, name: &str, number: (u32, u32)) -> Result<Self> {
        let mut header = header(0o620)?;
        header.set_device_major(number.0)?;
        header.set_device_minor(number.1)?;
        self.entry(kind, name, header, &[])
    }

    /// Extended attributes for the entry that comes next.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Result<Self> {
        let key = format!("SCHILY.xattr.{name}");
        self.builder.append_pax_extensions([(key.as_str(), value)])?;
        Ok(self)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Result<Self> {
        let mut header = header(0o777)?;
        header.set_link_name_literal(target)?;
        self.entry(kind, name, header, &[])
    }

    /// An entry whose header says more than the other functions can.
    pub fn entry(mut self, kind: EntryType, name: &str, mut header: Header, content: &[u8]) -> Result<Self> {
        if name.len() > SHORT_NAME {
            self.builder.append_pax_extensions([("path", name.as_bytes())])?;
        }
        let short = name.len().min(SHORT_NAME);
        header.as_old_mut().name[..short].copy_from_slice(&name.as_bytes()[..short]);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.builder.append(&header, content)?;
        Ok(self)
    }

    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.builder.into_inner()?)
    }
}

/// A header with a mode; owner root.
///
/// # Errors
/// Never, in fact.
pub fn header(mode: u32) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    Ok(header)
}

/// An image as an OCI layout; its parts may be spoilt before it is written.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Names and contents, in the order in which a tar has them.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// An image of these layers, whose command is `sh`.
    ///
    /// # Errors
    /// Never, in fact.
    pub fn new(reference: &str, layers: &[Vec<u8>]) -> Result<Self> {
        let diff_ids = layers.iter().map(|l| digest(l)).collect();
        Self::with_diff_ids(reference, layers, diff_ids)
    }

    /// The same, but the configuration names other diff ids: those of the uncompressed layers, or wrong ones.
    ///
    /// # Errors
    /// Never, in fact.
    pub fn with_diff_ids(reference: &str, layers: &[Vec<u8>], diff_ids: Vec<String>) -> Result<Self> {
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Labels": {"made-by": "a case"}},
        });
        let mut layout = Self { files: vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())] };
        let config = layout.blob(&serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json");
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let compressed = if layer.starts_with(&[0x1f, 0x8b]) { "+gzip" } else { "" };
                layout.blob(layer, &format!("application/vnd.oci.image.layer.v1.tar{compressed}"))
            })
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let mut manifest = layout.blob(&serde_json::to_vec(&manifest)?, kind);
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        layout.files.push(("index.json".into(), serde_json::to_vec(&index)?));
        Ok(layout)
    }

    fn blob(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let digest = digest(bytes);
        self.files.push((format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// # Errors
    /// Those of writing a tar.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let layer = self.files.iter().try_fold(Layer::default(), |l, (name, bytes)| l.file(name, 0o644, bytes))?;
        layer.finish()
    }

    /// # Errors
    /// Those of writing files.
    pub fn to_folder(&self, dir: &Path) -> Result<()> {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().context("a name without a folder")?)?;
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// As images name blobs: `sha256:` and hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    shown(Sha256::digest(bytes).as_slice())
}

/// The same of more bytes than should be in memory.
///
/// # Errors
/// Those of reading.
pub fn digest_of(mut bytes: impl Read) -> Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match bytes.read(&mut chunk)? {
            0 => return Ok(shown(hash.finalize().as_slice())),
            n => hash.update(&chunk[..n]),
        }
    }
}

fn shown(hash: &[u8]) -> String {
    let digits: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{digits}")
}

/// # Errors
/// Never, in fact.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut compressed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut compressed)?;
    Ok(compressed)
}

/// The one layer of the default image, uncompressed.
///
/// # Errors
/// When the stage's image is not as `rootfs` makes it.
pub fn busybox_layer(host: &Host) -> Result<Vec<u8>> {
    let path = host.stage.join("lib/dewar/busybox.tar");
    let mut largest = Vec::new();
    for entry in Archive::new(std::fs::File::open(&path)?).entries()? {
        let mut entry = entry?;
        if entry.size() > largest.len() as u64 {
            largest.clear();
            entry.read_to_end(&mut largest)?;
        }
    }
    ensure!(largest.get(257..262) == Some(b"ustar"), "the largest part of {} is no layer", path.display());
    Ok(largest)
}
