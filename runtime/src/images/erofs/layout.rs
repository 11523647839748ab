//! Gives every node its place and writes directories, inodes and superblock.

use std::collections::BTreeMap;
use std::ops::Range;

use super::format::{
    BLOCK, BLOCK_SIZE, DIRENT_SIZE, DataLayout, HOLE, INODE_SIZE, Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK,
    S_IFREG, SLOT, SuperBlock,
};
use super::output::Output;
use super::tree::{Contents, Directory, Kind, Node, NodeId, ROOT, Run, Tree};
use super::{LayerError, xattr};

/// Where the root's inode is. Not the first slot: number 0 is no inode number to some programs.
const FIRST_OFFSET: u64 = 2 * SLOT;

/// What becomes of one node.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// 0: the node is unreachable.
    links: u32,
    parent: NodeId,
    /// Byte offset in the inode area.
    offset: u64,
    /// Of directories and symlinks: bytes of content.
    size: u64,
    /// Of directories and symlinks: first of the blocks that do not fit behind the inode.
    block: u32,
    /// Bytes of content that follow the inode.
    inline: u64,
}

struct Layout<'a> {
    tree: &'a Tree,
    /// Indexed by node.
    places: Vec<Place>,
    /// Reachable nodes, breadth first.
    order: Vec<NodeId>,
    chunked_files: bool,
}

/// Writes everything but file contents, and gives the image's length.
pub(super) fn write(tree: &Tree, mut out: Output) -> Result<u64, LayerError> {
    let mut layout = Layout { tree, places: vec![Place::default(); tree.len()], order: vec![], chunked_files: false };
    layout.walk();
    out.align()?;
    layout.measure(&mut out)?;
    let mut inodes = 0u64;
    let meta_block = out.block()?;
    let meta_start = out.position();
    for index in 0..layout.order.len() {
        let Some((id, node, place)) = layout.nth(index) else { continue };
        let gap = meta_start.saturating_add(place.offset).saturating_sub(out.position());
        out.skip(gap)?;
        layout.write_inode(&mut out, id, node, place)?;
        inodes = inodes.saturating_add(1);
    }
    out.align()?;
    let superblock = SuperBlock {
        root_nid: (FIRST_OFFSET / SLOT) as u16,
        inodes,
        blocks: out.block()?,
        meta_block,
        chunked_files: layout.chunked_files,
    };
    out.finish(&superblock.encode())
}

impl<'a> Layout<'a> {
    fn nth(&self, index: usize) -> Option<(NodeId, &'a Node, Place)> {
        let id = *self.order.get(index)?;
        Some((id, self.tree.node(id)?, *self.places.get(id as usize)?))
    }

    /// Finds what is reachable and counts links. Whiteouts in an opaque directory have nothing left to hide.
    fn walk(&mut self) {
        let mut opaque = vec![false; self.places.len()];
        self.visit(ROOT, ROOT, 2);
        let mut next = 0;
        while let Some((id, node, _)) = self.nth(next) {
            next += 1;
            let Kind::Directory(directory) = &node.kind else { continue };
            let hides = directory.opaque || opaque.get(id as usize).copied().unwrap_or(false);
            for child in directory.children.values().copied() {
                match self.tree.node(child).map(|n| &n.kind) {
                    Some(Kind::Directory(_)) => {
                        self.visit(child, id, 2);
                        self.visit(id, id, 1);
                        opaque.get_mut(child as usize).into_iter().for_each(|flag| *flag = hides);
                    }
                    Some(Kind::Whiteout) if hides => {}
                    Some(_) => self.visit(child, id, 1),
                    None => {}
                }
            }
        }
    }

    fn visit(&mut self, id: NodeId, parent: NodeId, links: u32) {
        let Some(place) = self.places.get_mut(id as usize) else { return };
        if place.links == 0 {
            place.parent = parent;
            self.order.push(id);
        }
        place.links = place.links.saturating_add(links);
    }

    /// Decides what is inline, gives every inode its offset, then writes the blocks of directories and long symlinks
    /// (whose entries need the offsets) where `out` is.
    fn measure(&mut self, out: &mut Output) -> Result<(), LayerError> {
        let mut offset = FIRST_OFFSET;
        let mut block = u64::from(out.block()?);
        for index in 0..self.order.len() {
            let Some((id, node, mut place)) = self.nth(index) else { continue };
            let head = INODE_SIZE.saturating_add(xattr::size(&node.attributes.xattrs));
            let mut map = 0;
            match &node.kind {
                Kind::File { contents: Contents::Flat { tail, .. }, .. } => place.inline = tail.len() as u64,
                Kind::File { size, contents: Contents::Chunked { chunk_bits, .. } } => {
                    map = chunks(*size, *chunk_bits).saturating_mul(4);
                    self.chunked_files = true;
                }
                Kind::Directory(directory) => place.size = size_of_entries(&self.entries(directory, id, ROOT)),
                Kind::Symlink(target) => place.size = target.len() as u64,
                _ => {}
            }
            if place.size > 0 {
                let tail = place.size % BLOCK;
                place.inline = if head.saturating_add(tail) <= BLOCK { tail } else { 0 };
                place.block = u32::try_from(block).unwrap_or(HOLE);
                block = block.saturating_add(place.size.saturating_sub(place.inline).div_ceil(BLOCK));
            }
            let whole = head.saturating_add(place.inline);
            let together = if place.inline > 0 { whole } else { INODE_SIZE };
            if (offset % BLOCK).saturating_add(together) > BLOCK {
                offset = offset.next_multiple_of(BLOCK);
            }
            place.offset = offset;
            offset = offset.saturating_add(whole).saturating_add(map).next_multiple_of(SLOT);
            if let Some(slot) = self.places.get_mut(id as usize) {
                *slot = place;
            }
        }
        for index in 0..self.order.len() {
            let Some((id, node, place)) = self.nth(index) else { continue };
            let outside = place.size.saturating_sub(place.inline);
            if outside == 0 {
                continue;
            }
            let content = self.content(id, node, place);
            out.append(content.get(..usize::try_from(outside).unwrap_or(0)).unwrap_or_default())?;
            out.align()?;
        }
        Ok(())
    }

    fn write_inode(&self, out: &mut Output, id: NodeId, node: &Node, place: Place) -> Result<(), LayerError> {
        let attributes = &node.attributes;
        let flat = if place.inline > 0 { DataLayout::Inline } else { DataLayout::Plain };
        let (format, layout, size, union) = match &node.kind {
            Kind::Directory(_) => (S_IFDIR, flat, place.size, place.block),
            Kind::Symlink(_) => (S_IFLNK, flat, place.size, place.block),
            Kind::File { size, contents: Contents::Flat { first_block, .. } } => (S_IFREG, flat, *size, *first_block),
            Kind::File { size, contents: Contents::Chunked { chunk_bits, .. } } => {
                (S_IFREG, DataLayout::Chunked, *size, u32::from(*chunk_bits))
            }
            Kind::CharDevice(number) => (S_IFCHR, flat, 0, *number),
            Kind::BlockDevice(number) => (S_IFBLK, flat, 0, *number),
            Kind::Fifo => (S_IFIFO, flat, 0, 0),
            // Device number 0:0 is overlayfs' whiteout.
            Kind::Whiteout => (S_IFCHR, flat, 0, 0),
        };
        let inode = Inode {
            layout,
            xattr_bytes: xattr::size(&attributes.xattrs),
            mode: format | attributes.mode,
            size,
            union,
            number: id.saturating_add(1),
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            links: place.links,
        };
        out.append(&inode.encode())?;
        if !attributes.xattrs.is_empty() {
            out.append(&[0; 12])?;
            out.append(&attributes.xattrs)?;
        }
        match &node.kind {
            Kind::File { contents: Contents::Flat { tail, .. }, .. } => out.append(tail),
            Kind::File { size, contents: Contents::Chunked { chunk_bits, runs } } => {
                write_map(out, chunks(*size, *chunk_bits), *chunk_bits, runs)
            }
            Kind::Directory(_) | Kind::Symlink(_) if place.inline > 0 => {
                let start = usize::try_from(place.size.saturating_sub(place.inline)).unwrap_or(usize::MAX);
                out.append(self.content(id, node, place).get(start..).unwrap_or_default())
            }
            _ => Ok(()),
        }
    }

    /// Content of a directory or a symlink.
    fn content(&self, id: NodeId, node: &Node, place: Place) -> Vec<u8> {
        match &node.kind {
            Kind::Directory(directory) => self.encode_entries(&self.entries(directory, id, place.parent)),
            Kind::Symlink(target) => target.to_vec(),
            _ => Vec::new(),
        }
    }

    /// All entries in the order of their bytes, which lookups rely on.
    fn entries<'d>(&self, directory: &'d Directory, id: NodeId, parent: NodeId) -> Vec<(&'d [u8], NodeId)> {
        let reachable = |id: &NodeId| self.places.get(*id as usize).is_some_and(|p| p.links > 0);
        let children: &'d BTreeMap<Box<[u8]>, NodeId> = &directory.children;
        let named = children.iter().filter(|(_, id)| reachable(id)).map(|(name, id)| (&**name, *id));
        let mut all: Vec<_> = named.chain([(b".".as_slice(), id), (b"..", parent)]).collect();
        all.sort_unstable();
        all
    }

    fn encode_entries(&self, entries: &[(&[u8], NodeId)]) -> Vec<u8> {
        let mut out = Vec::new();
        for range in pack(entries) {
            out.resize(out.len().next_multiple_of(BLOCK_SIZE), 0);
            let Some(group) = entries.get(range) else { continue };
            let mut name_offset = group.len().saturating_mul(DIRENT_SIZE);
            for (name, id) in group {
                let offset = self.places.get(*id as usize).map_or(0, |p| p.offset);
                out.extend_from_slice(&(offset / SLOT).to_le_bytes());
                out.extend_from_slice(&u16::try_from(name_offset).unwrap_or(0).to_le_bytes());
                out.extend_from_slice(&[self.tree.node(*id).map_or(0, |n| file_type(&n.kind)), 0]);
                name_offset = name_offset.saturating_add(name.len());
            }
            for (name, _) in group {
                out.extend_from_slice(name);
            }
        }
        out
    }
}

/// Which entries share a block.
fn pack(entries: &[(&[u8], NodeId)]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let mut used = 0usize;
    for (index, (name, _)) in entries.iter().enumerate() {
        let cost = name.len().saturating_add(DIRENT_SIZE);
        if used.saturating_add(cost) > BLOCK_SIZE {
            ranges.push(start..index);
            start = index;
            used = 0;
        }
        used = used.saturating_add(cost);
    }
    ranges.push(start..entries.len());
    ranges
}

fn size_of_entries(entries: &[(&[u8], NodeId)]) -> u64 {
    let ranges = pack(entries);
    let last = ranges.last().and_then(|r| entries.get(r.clone())).unwrap_or_default();
    let tail: usize = last.iter().map(|(name, _)| name.len().saturating_add(DIRENT_SIZE)).sum();
    (ranges.len() as u64).saturating_sub(1).saturating_mul(BLOCK).saturating_add(tail as u64)
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => 2,
        Kind::CharDevice(_) | Kind::Whiteout => 3,
        Kind::BlockDevice(_) => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}

fn chunks(size: u64, chunk_bits: u8) -> u64 {
    size.div_ceil(BLOCK).div_ceil(1 << chunk_bits)
}

fn write_map(out: &mut Output, chunks: u64, chunk_bits: u8, runs: &[Run]) -> Result<(), LayerError> {
    let mut runs = runs.iter().peekable();
    for chunk in 0..chunks {
        let logical = chunk << chunk_bits;
        while runs.next_if(|r| r.logical.saturating_add(u64::from(r.blocks)) <= logical).is_some() {}
        let address = runs.peek().filter(|r| r.logical <= logical).map_or(HOLE, |run| {
            let distance = u32::try_from(logical.saturating_sub(run.logical)).unwrap_or(0);
            run.physical.saturating_add(distance)
        });
        out.append(&address.to_le_bytes())?;
    }
    Ok(())
}
