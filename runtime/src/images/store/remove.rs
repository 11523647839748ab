//! `rmi`, with docker's rules on what needs force and what not even that helps.

use std::collections::BTreeSet;

use rustix::fs::FlockOperation;

use super::super::{Digest, Error, Reference, Version};
use super::Store;
use super::index::By;

/// A container that needs an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub image: Digest,
    /// Its name or id, for messages.
    pub container: String,
    pub running: bool,
}

/// What a removal did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    Untagged(Reference),
    Deleted(Digest),
}

impl Store {
    /// Takes a name from an image, and removes it with all layers that no other image has when that was the last one; or
    /// removes an image by its id with all of its names. `uses` is asked while nobody can begin to use an image.
    ///
    /// Force takes the last name from an image that a container uses, and removes by id an image that several repositories
    /// refer to. It never takes the layers from a container, also a stopped one: the image stays, without a name.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::ManyReferences`], and as [`Store::resolve`].
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        uses: impl FnOnce() -> Result<Vec<Use>, Error>,
    ) -> Result<Vec<Removed>, Error> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let mut index = self.index()?;
        let (entry, by) = index.find(name)?;
        let id = entry.id.clone();
        let references = entry.references();
        let doomed = match &by {
            By::Reference(reference) => with_leftovers(reference, &references),
            By::Id => references.clone(),
        };
        let stays = doomed.len() < references.len();
        let user = uses()?.into_iter().filter(|u| u.image == id).max_by_key(|u| u.running);
        if by == By::Id && !force && repositories(&references) > 1 {
            return Err(Error::ManyReferences { image: name.to_owned() });
        }
        if let Some(Use { container, running, .. }) = &user
            && !stays
            && (!force || references.is_empty())
        {
            return Err(Error::InUse { image: name.to_owned(), container: container.clone(), running: *running });
        }
        for entry in index.images.iter_mut().filter(|e| e.id == id) {
            doomed.iter().for_each(|reference| entry.forget(reference));
        }
        let mut done: Vec<_> = doomed.into_iter().map(Removed::Untagged).collect();
        if !stays && user.is_none() {
            index.images.retain(|e| e.id != id);
            done.push(Removed::Deleted(id));
        }
        index.write(&self.root)?;
        self.collect(&index)?;
        Ok(done)
    }
}

/// The name, and when no other tag of its repository remains, also the digests of the repository.
fn with_leftovers(name: &Reference, all: &[Reference]) -> Vec<Reference> {
    let same = |r: &&Reference| r.registry() == name.registry() && r.repository() == name.repository();
    let rest = all.iter().filter(|r| *r != name).filter(same);
    let (tags, digests): (Vec<_>, Vec<_>) = rest.partition(|r| matches!(r.version(), Version::Tag(_)));
    let leftovers = digests.into_iter().filter(|_| tags.is_empty());
    std::iter::once(name).chain(leftovers).cloned().collect()
}

fn repositories(references: &[Reference]) -> usize {
    references.iter().map(Reference::familiar_repository).collect::<BTreeSet<_>>().len()
}
