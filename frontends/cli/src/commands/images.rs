//! `dewar images`.

use clap::Args;
use dewar_runtime::Error;
use dewar_runtime::images::{Image, Reference, Version};

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::table::{Column, List};
use crate::output::units;

const COLUMNS: [Column; 7] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];
const SHOWN: [&str; 5] = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
const SHOWN_WITH_DIGESTS: [&str; 6] = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
const NONE: &str = "<none>";

#[derive(Debug, Args)]
pub struct Images {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show digests of manifests
    #[arg(long)]
    digests: bool,
    /// table, json, or a template such as {{.Repository}}:{{.Tag}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Verb for Images {
    const NAME: &'static str = "images";
    const ABOUT: &'static str = "List images";
    const USAGE: &'static str = "[OPTIONS] [REPOSITORY[:TAG]]";
    const EXAMPLES: &'static str = "  dewar images\n  dewar images -q busybox";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let images = globals.runtime()?.images()?.list().map_err(Error::from)?;
        let wanted = self.name.as_deref().map(|name| Ok::<_, Error>((Reference::parse(name)?, name))).transpose()?;
        let now = units::now();
        let mut rows = Vec::new();
        for image in &images {
            let shown: Vec<&Reference> = image
                .references
                .iter()
                .filter(|r| wanted.as_ref().is_none_or(|(w, text)| matches(r, w, text)))
                .collect();
            if wanted.is_none() && image.references.is_empty() {
                rows.push(self.row(image, None, now));
            }
            rows.extend(shown.into_iter().map(|reference| self.row(image, Some(reference), now)));
        }
        if self.quiet {
            let mut ids: Vec<&String> = rows.iter().filter_map(|row| row.get(3)).collect();
            ids.dedup();
            for id in ids {
                output::line(id)?;
            }
            return Ok(0);
        }
        let shown: &[&str] = if self.digests { &SHOWN_WITH_DIGESTS } else { &SHOWN };
        List { columns: &COLUMNS, shown, rows }.print(self.format.as_deref())?;
        Ok(0)
    }
}

/// Without a tag in `text`, every tag of the repository.
fn matches(reference: &Reference, wanted: &Reference, text: &str) -> bool {
    let tagged = text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    reference.familiar_repository() == wanted.familiar_repository()
        && (!tagged || reference.version() == wanted.version())
}

impl Images {
    fn row(&self, image: &Image, reference: Option<&Reference>, now: u64) -> Vec<String> {
        let tag = match reference.map(Reference::version) {
            Some(Version::Tag(tag)) => tag.clone(),
            _ => NONE.to_owned(),
        };
        let created = image.created.as_deref().and_then(|text| units::point_in_time(text, now).ok());
        vec![
            reference.map_or_else(|| NONE.to_owned(), Reference::familiar_repository),
            tag,
            image.manifest.as_ref().map_or_else(|| NONE.to_owned(), ToString::to_string),
            if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() },
            created.map_or_else(|| "N/A".to_owned(), |then| units::ago(then, now)),
            created.map_or_else(|| "N/A".to_owned(), units::utc),
            units::size(image.size),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_all_of_its_tags() {
        let reference = |text: &str| Reference::parse(text).expect("a reference");
        for (have, wanted, expected) in [
            ("busybox:1", "busybox", true),
            ("busybox:1", "docker.io/library/busybox", true),
            ("busybox:1", "busybox:1", true),
            ("busybox:1", "busybox:latest", false),
            ("busybox:1", "alpine", false),
            ("localhost:5000/a:x", "localhost:5000/a", true),
        ] {
            assert_eq!(matches(&reference(have), &reference(wanted), wanted), expected, "{have} {wanted}");
        }
    }
}
