//! The docker archive: `manifest.json` names configurations, layers and tags.

use serde::Deserialize;

use super::archive::Archive;
use super::{LayerBlob, NewImage, Progress, Session, config, convert};
use crate::images::blob::read_json;
use crate::images::{Error, Reference};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn load(archive: &Archive, session: &Session<'_>, progress: &dyn Progress) -> Result<Vec<NewImage>, Error> {
    let items: Vec<Item> = read_json(&archive.read("manifest.json")?, "manifest.json")?;
    if items.is_empty() {
        return Err(Error::Nonsense { what: "its manifest.json names no image".to_owned() });
    }
    items.into_iter().map(|item| image(archive, session, item, progress)).collect()
}

fn image(archive: &Archive, session: &Session<'_>, item: Item, progress: &dyn Progress) -> Result<NewImage, Error> {
    let bytes = archive.read(&item.config)?;
    let diff_ids = config::diff_ids(&config::parse(&bytes)?)?;
    if diff_ids.len() != item.layers.len() {
        let what = format!("it lists {} layers, its configuration {}", item.layers.len(), diff_ids.len());
        return Err(Error::Nonsense { what });
    }
    for (name, diff_id) in item.layers.into_iter().zip(diff_ids) {
        convert(archive, session, &LayerBlob { name, diff_id, expected: None }, progress)?;
    }
    let tags = item.repo_tags.unwrap_or_default();
    let references = tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<_, _>>()?;
    Ok(NewImage { config: bytes, manifest: None, references })
}
