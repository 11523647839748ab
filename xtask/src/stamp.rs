//! Nothing is done twice: a product is remembered with a description of its inputs.
//!
//! An input file is described by its path, size, modification time and inode: reading megabytes to find out that
//! nothing changed would cost more than most steps.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::places::Places;

/// Description of the inputs of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    text: String,
}

impl Stamp {
    /// `recipe` stands for the step's own code: change it when the same inputs would give another product.
    pub fn new(recipe: &str) -> Self {
        Self { text: format!("recipe {recipe}\n") }
    }

    /// Adds a file that the product is made from.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).with_context(|| format!("Failed to look at {}", path.display()))?;
        writeln!(
            self.text,
            "file {} {} {}.{:09} {}",
            path.display(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ino()
        )?;
        Ok(self)
    }

    /// Whether `product` exists and was made from these inputs.
    pub fn matches(&self, places: &Places, product: &Path) -> bool {
        product.exists()
            && stamp_name(product)
                .is_some_and(|name| fs::read_to_string(places.stamps().join(name)).is_ok_and(|old| old == self.text))
    }

    /// Remembers that `product` was made from these inputs.
    pub fn record(&self, places: &Places, product: &Path) -> Result<()> {
        let dir = places.stamps();
        fs::create_dir_all(&dir).with_context(|| format!("Failed to create {}", dir.display()))?;
        let name = stamp_name(product).with_context(|| format!("{} names no file", product.display()))?;
        let path = dir.join(name);
        fs::write(&path, &self.text).with_context(|| format!("Failed to write {}", path.display()))
    }
}

/// Names of products are unique within the prefix, so the last component will do.
fn stamp_name(product: &Path) -> Option<&std::ffi::OsStr> {
    product.file_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        Places {
            root: root.to_owned(),
            target: root.join("target"),
            stage: root.join("stage"),
            cache: root.join("cache"),
        }
    }

    #[test]
    fn a_changed_input_or_a_lost_product_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let (input, product) = (dir.path().join("input"), dir.path().join("product"));
        fs::write(&input, "1").unwrap();
        fs::write(&product, "made").unwrap();
        let stamp = |recipe: &str| Stamp::new(recipe).file(&input).unwrap();

        assert!(!stamp("a").matches(&places, &product));
        stamp("a").record(&places, &product).unwrap();
        assert!(stamp("a").matches(&places, &product));
        assert!(!stamp("b").matches(&places, &product));
        fs::write(&input, "22").unwrap();
        assert!(!stamp("a").matches(&places, &product));
        stamp("a").record(&places, &product).unwrap();
        fs::remove_file(&product).unwrap();
        assert!(!stamp("a").matches(&places, &product));
    }
}
