//! What tests of pulling have in common: a store with nothing in it, and layers.

use std::fs;

use dewar_runtime::images::{Error, Progress, PullOptions, Pulled, Reference, Silent, Store, pull};

/// Its folder is docker's, for `config.json`, and has a `certs.d`.
pub struct Client {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub options: PullOptions,
}

impl Client {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let docker_config = Some(dir.path().to_path_buf());
        let certificates = Some(vec![dir.path().join("certs.d")]);
        let options = PullOptions { docker_config, certificates, ..PullOptions::default() };
        Self { dir, store, options }
    }

    pub fn pull(&self, reference: &Reference, progress: &dyn Progress) -> Result<Pulled, Error> {
        pull(&self.store, reference, &self.options, progress)
    }

    /// The error of a pull that must leave nothing behind.
    pub fn refusal(&self, reference: &Reference) -> Error {
        let error = self.pull(reference, &Silent).unwrap_err();
        for dir in ["tmp", "layers", "blobs/sha256"] {
            assert_eq!(fs::read_dir(self.store.root().join(dir)).unwrap().count(), 0, "{dir}");
        }
        error
    }
}

/// A layer of one file.
pub fn layer(name: &str, size: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content.as_slice()).unwrap();
    builder.into_inner().unwrap()
}
