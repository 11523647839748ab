//! bzImage kernels: the protected-mode part is put at its preferred place and entered by the 64-bit protocol; it
//! decompresses itself in the guest. Linux boot protocol 2.12 and later (`Documentation/x86/boot.rst`).

use linux_loader::loader::{KernelLoader, bootparam::setup_header, bzimage::BzImage};
use vm_memory::{ByteValued, GuestAddress};

use dewar_virtio::GuestMemory;

use super::{Entry, Image, KernelError, LoadedKernel};
use crate::layout::HIGH_MEMORY;

const SETUP_HEADER_AT: usize = 0x1f1;
/// End of the header in the file.
pub const HEADER_END: usize = SETUP_HEADER_AT + size_of::<setup_header>();
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const OLDEST_VERSION: u16 = 0x020c;
/// `XLF_KERNEL_64`
const HAS_64_BIT_ENTRY: u16 = 1;
const ENTRY_OFFSET: u64 = 0x200;
const SECTOR: u64 = 512;
/// Unit of `syssize`.
const PARAGRAPH: u64 = 16;

pub fn is_bzimage(head: &[u8]) -> bool {
    head.get(MAGIC_AT..).is_some_and(|rest| rest.starts_with(MAGIC))
}

pub fn load(image: &Image, head: &[u8; HEADER_END], memory: &GuestMemory) -> Result<LoadedKernel, KernelError> {
    image.check_has(HEADER_END as u64)?;
    let mut header = setup_header::default();
    header.as_mut_slice().copy_from_slice(&head[SETUP_HEADER_AT..]);
    if header.version < OLDEST_VERSION || header.xloadflags & HAS_64_BIT_ENTRY == 0 {
        return Err(image.unbootable("it has no 64-bit entry point"));
    }
    let sectors = match header.setup_sects {
        0 => 4,
        n => u64::from(n),
    };
    let expected = (sectors + 1) * SECTOR + u64::from(header.syssize) * PARAGRAPH;
    image.check_has(expected)?;
    let pref_address = header.pref_address;
    let start = u64::from(header.code32_start);
    let needed = pref_address.max(start).saturating_add(u64::from(header.init_size)).max(start + image.len);
    image.check_fits(needed)?;

    let mut file = image.file;
    let loaded = BzImage::load(memory, None, &mut file, Some(GuestAddress(HIGH_MEMORY)))
        .map_err(|source| KernelError::Read { path: image.path(), source: std::io::Error::other(source) })?;
    Ok(LoadedKernel {
        entry: Entry::Long { address: loaded.kernel_load.0 + ENTRY_OFFSET },
        end: needed,
        setup_header: loaded.setup_header,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::load_bytes;
    use super::*;
    use vm_memory::Bytes;

    fn bzimage(change: impl FnOnce(&mut setup_header)) -> Vec<u8> {
        let mut header = setup_header {
            setup_sects: 1,
            syssize: 0x40,
            header: u32::from_le_bytes(*b"HdrS"),
            version: 0x020f,
            loadflags: 1,
            code32_start: HIGH_MEMORY as u32,
            xloadflags: HAS_64_BIT_ENTRY,
            pref_address: 0x100_0000 / 8,
            init_size: 0x1000,
            ..Default::default()
        };
        change(&mut header);
        let mut bytes = vec![0; SETUP_HEADER_AT];
        bytes.extend(header.as_slice());
        bytes.resize(1024, 0);
        bytes.resize(2048, 0x90);
        bytes
    }

    #[test]
    fn the_protected_mode_part_is_loaded_and_entered() {
        let (loaded, memory) = load_bytes(&bzimage(|_| ()));
        let loaded = loaded.unwrap();
        assert_eq!(loaded.entry, Entry::Long { address: HIGH_MEMORY + ENTRY_OFFSET });
        assert_eq!(loaded.end, 0x20_0000 + 0x1000);
        assert!(loaded.setup_header.is_some());
        assert_eq!(memory.read_obj::<u32>(GuestAddress(HIGH_MEMORY)).unwrap(), 0x9090_9090);
    }

    #[test]
    fn a_cut_off_file_is_truncated() {
        let whole = bzimage(|_| ());
        for len in [0x210, 1024, whole.len() - 1] {
            let error = load_bytes(&whole[..len]).0.unwrap_err();
            assert!(error.to_string().contains("is truncated"), "{len}: {error}");
        }
    }

    #[test]
    fn kernels_without_a_64_bit_entry_are_refused() {
        for change in [|h: &mut setup_header| h.version = 0x0206, |h: &mut setup_header| h.xloadflags = 0] {
            assert!(matches!(load_bytes(&bzimage(change)).0, Err(KernelError::Unbootable { .. })));
        }
    }

    #[test]
    fn the_decompressed_kernel_must_fit() {
        let error = load_bytes(&bzimage(|h| h.init_size = 64 << 20)).0.unwrap_err();
        assert!(matches!(error, KernelError::DoesNotFit { needed_mib: 66, available_mib: 16, .. }), "{error}");
    }
}
