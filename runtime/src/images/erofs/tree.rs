//! The layer's tree in memory: what is where once all entries have been seen.
//!
//! Nodes live in one vector and are never freed: a node that an entry has replaced is only unreachable. Every node is
//! charged against the limits when it is made.

use std::collections::BTreeMap;

use super::super::tarball::Timestamp;
use super::{LayerError, Limits, Problem, xattr};

pub(super) type NodeId = u32;

pub(super) const ROOT: NodeId = 0;

/// What a node costs beside its name and contents.
const NODE_COST: u64 = 160;

/// Blocks of a file that lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) logical: u64,
    pub(super) physical: u32,
    pub(super) blocks: u32,
}

#[derive(Debug)]
pub(super) enum Contents {
    /// All blocks from `first_block` on; the last partial one may be kept here instead.
    Flat { first_block: u32, tail: Box<[u8]> },
    /// Chunks of `1 << chunk_bits` blocks; what no run covers is a hole.
    Chunked { chunk_bits: u8, runs: Box<[Run]> },
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    pub(super) opaque: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory(Directory),
    File { size: u64, contents: Contents },
    Symlink(Box<[u8]>),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Whiteout,
}

/// Who owns a node and what may be done with it.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    /// As they follow the inode.
    pub(super) xattrs: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) kind: Kind,
}

/// Why something cannot be put into the tree.
pub(super) enum Refusal {
    Entry(Problem),
    Layer(LayerError),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Entry(problem)
    }
}

pub(super) struct Tree {
    nodes: Vec<Node>,
    limits: Limits,
    metadata: u64,
}

impl Tree {
    pub(super) fn new(limits: Limits) -> Self {
        let root = Node {
            attributes: Attributes { mode: 0o755, ..Attributes::default() },
            kind: Kind::Directory(Directory::default()),
        };
        Self { nodes: vec![root], limits, metadata: 0 }
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Counts bytes that stay in memory.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.metadata = self.metadata.saturating_add(bytes as u64);
        if self.metadata > self.limits.metadata {
            return Err(LayerError::Limit { what: "bytes of metadata", limit: self.limits.metadata });
        }
        Ok(())
    }

    /// The directory that the components lead to; what is missing on the way is made, with mode 0755.
    pub(super) fn directory(&mut self, components: &[&[u8]], mtime: Timestamp) -> Result<NodeId, Refusal> {
        let mut at = ROOT;
        for name in components {
            at = match self.child(at, name) {
                Some(next) => match self.node(next).map(|n| &n.kind) {
                    Some(Kind::Directory(_)) => next,
                    Some(Kind::Whiteout) => self.place(at, name, implied(mtime))?,
                    _ => return Err(Problem::ParentNotDirectory.into()),
                },
                None => self.place(at, name, implied(mtime))?,
            };
        }
        Ok(at)
    }

    /// Puts a node at a name, in place of what is there: except that a directory keeps its entries when another one comes,
    /// and that a whiteout yields to everything (it speaks of the layers below, whatever the order).
    pub(super) fn place(&mut self, parent: NodeId, name: &[u8], mut node: Node) -> Result<NodeId, Refusal> {
        if let Some(existing) = self.child(parent, name) {
            match (self.nodes.get_mut(existing as usize), &mut node.kind) {
                (Some(Node { kind: Kind::Directory(directory), .. }), Kind::Whiteout) => {
                    directory.opaque = true;
                    return Ok(existing);
                }
                (Some(_), Kind::Whiteout) => return Ok(existing),
                (Some(Node { kind: Kind::Directory(_), attributes }), Kind::Directory(_)) => {
                    *attributes = node.attributes;
                    return Ok(existing);
                }
                (Some(Node { kind: Kind::Whiteout, .. }), Kind::Directory(new)) => new.opaque = true,
                _ => {}
            }
        }
        let cost = NODE_COST.saturating_add(node.attributes.xattrs.len() as u64).saturating_add(match &node.kind {
            Kind::Symlink(target) => target.len() as u64,
            Kind::File { contents: Contents::Flat { tail, .. }, .. } => tail.len() as u64,
            Kind::File { contents: Contents::Chunked { runs, .. }, .. } => size_of_val::<[Run]>(runs) as u64,
            _ => 0,
        });
        self.charge(usize::try_from(cost).unwrap_or(usize::MAX)).map_err(Refusal::Layer)?;
        let limit = u64::from(self.limits.entries);
        let id = u32::try_from(self.nodes.len()).ok().filter(|id| *id < self.limits.entries);
        let id = id.ok_or(Refusal::Layer(LayerError::Limit { what: "entries", limit }))?;
        self.nodes.push(node);
        self.link(parent, name, id)?;
        Ok(id)
    }

    /// Gives an existing node one more name.
    pub(super) fn link(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), Refusal> {
        self.charge(name.len().saturating_add(48)).map_err(Refusal::Layer)?;
        match self.nodes.get_mut(parent as usize).map(|n| &mut n.kind) {
            Some(Kind::Directory(directory)) => {
                directory.children.insert(name.into(), id);
                Ok(())
            }
            _ => Err(Problem::ParentNotDirectory.into()),
        }
    }

    /// What a hard link names: anything but a directory or a whiteout.
    pub(super) fn link_target(&self, components: &[&[u8]]) -> Result<NodeId, Problem> {
        let mut at = ROOT;
        for name in components {
            at = self.child(at, name).ok_or(Problem::LinkTargetMissing)?;
        }
        match self.node(at).map(|n| &n.kind) {
            Some(Kind::Directory(_)) => Err(Problem::LinkToDirectory),
            None | Some(Kind::Whiteout) => Err(Problem::LinkTargetMissing),
            Some(_) => Ok(at),
        }
    }

    pub(super) fn set_opaque(&mut self, id: NodeId) {
        if let Some(Node { kind: Kind::Directory(directory), .. }) = self.nodes.get_mut(id as usize) {
            directory.opaque = true;
        }
    }

    pub(super) fn set_attributes(&mut self, id: NodeId, attributes: Attributes) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.attributes = attributes;
        }
    }

    /// Gives opaque directories the attribute that overlayfs knows them by. To be called once, at the end: until then
    /// entries may still replace attributes.
    pub(super) fn mark_opaque(&mut self) -> Result<(), Problem> {
        for node in &mut self.nodes {
            if matches!(&node.kind, Kind::Directory(Directory { opaque: true, .. })) {
                node.attributes.xattrs = xattr::with_opaque(&node.attributes.xattrs)?;
            }
        }
        Ok(())
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent)?.kind {
            Kind::Directory(directory) => directory.children.get(name).copied(),
            _ => None,
        }
    }
}

fn implied(mtime: Timestamp) -> Node {
    Node {
        attributes: Attributes { mode: 0o755, mtime, ..Attributes::default() },
        kind: Kind::Directory(Directory::default()),
    }
}
