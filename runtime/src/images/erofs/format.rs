//! The on-disk structures. Little endian; offsets are those of Linux 6.1.

use super::super::tarball::Timestamp;

pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCK_BITS: u8 = 12;
pub(super) const BLOCK_SIZE: usize = BLOCK as usize;

/// Unit of node numbers: an inode's address is `meta_blkaddr * BLOCK + nid * SLOT`.
pub(super) const SLOT: u64 = 32;
pub(super) const INODE_SIZE: u64 = 64;
pub(super) const DIRENT_SIZE: usize = 12;

/// The address that stands for a hole.
pub(super) const HOLE: u32 = u32::MAX;

/// Where the superblock starts in block 0.
const SUPER_OFFSET: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;

pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    Plain = 0,
    /// The last, partial block follows the inode.
    Inline = 2,
    /// A map of block addresses follows the inode.
    Chunked = 4,
}

/// Everything about an inode but what follows it.
pub(super) struct Inode {
    pub(super) layout: DataLayout,
    pub(super) xattr_bytes: u64,
    pub(super) mode: u16,
    pub(super) size: u64,
    /// First block, device number, or chunk format, by kind.
    pub(super) union: u32,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn encode(&self) -> Vec<u8> {
        let format = 1 | (self.layout as u16) << 1;
        // The count is in words, the first of which stands for the header of three.
        let xattr_words = if self.xattr_bytes == 0 { 0 } else { self.xattr_bytes.saturating_sub(12) / 4 + 1 };
        let mut out = Vec::with_capacity(INODE_SIZE as usize);
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&u16::try_from(xattr_words).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.union.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        out.extend_from_slice(&self.links.to_le_bytes());
        out.resize(INODE_SIZE as usize, 0);
        out
    }
}

pub(super) struct SuperBlock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) chunked_files: bool,
}

impl SuperBlock {
    /// The whole of block 0.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; SUPER_OFFSET];
        block.extend_from_slice(&MAGIC.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        block.extend_from_slice(&[BLOCK_BITS, 0]);
        block.extend_from_slice(&self.root_nid.to_le_bytes());
        block.extend_from_slice(&self.inodes.to_le_bytes());
        // Build time: always the epoch, so that equal layers give equal images.
        block.extend_from_slice(&[0; 12]);
        block.extend_from_slice(&self.blocks.to_le_bytes());
        block.extend_from_slice(&self.meta_block.to_le_bytes());
        // No shared attributes, no identifier, no name.
        block.extend_from_slice(&[0; 4 + 16 + 16]);
        let incompat = if self.chunked_files { INCOMPAT_CHUNKED_FILE } else { 0 };
        block.extend_from_slice(&incompat.to_le_bytes());
        block.resize(BLOCK_SIZE, 0);
        let (_, rest) = block.split_at_mut(SUPER_OFFSET);
        let sum = crc32c(rest).to_le_bytes();
        if let Some(field) = rest.get_mut(4..8) {
            field.copy_from_slice(&sum);
        }
        block
    }
}

/// CRC-32C from all ones and without the final inversion, as the kernel's `crc32c(~0, …)` has it.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli_s() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn structures_have_their_sizes() {
        let sb = SuperBlock { root_nid: 2, inodes: 1, blocks: 2, meta_block: 1, chunked_files: true };
        let block = sb.encode();
        assert_eq!(block.len(), BLOCK_SIZE);
        assert_eq!(block[SUPER_OFFSET + 80], 4);
        let inode = Inode {
            layout: DataLayout::Inline,
            xattr_bytes: 20,
            mode: S_IFREG,
            size: 1,
            union: 0,
            number: 1,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            links: 1,
        };
        let bytes = inode.encode();
        assert_eq!(bytes.len() as u64, INODE_SIZE);
        assert_eq!(bytes[..4], [5, 0, 3, 0]);
    }
}
