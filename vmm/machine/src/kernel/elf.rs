//! ELF kernels (`vmlinux`): loadable segments at their physical addresses, entered by the PVH note where there is one and
//! by the 64-bit protocol at the ELF entry point otherwise.
//!
//! Segments are read straight from the file into guest memory. Mapping the file's pages in their place was measured and
//! is slower (76 instead of 47 ms from process start to guest init, counting instructions): the guest then takes a nested
//! fault for each 4 KiB page it touches, instead of one for 2 MiB. The copy hides behind the creation of the VM.

use std::io::{Seek, SeekFrom};

use dewar_virtio::GuestMemory;
use linux_loader::elf::{EM_X86_64, ET_EXEC, Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use vm_memory::ByteValued;

use super::{Entry, Image, KernelError, LoadedKernel};
use crate::layout::{HIGH_MEMORY, RamRange};
use crate::memory;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const CLASS_AT: usize = 4;
const DATA_AT: usize = 5;
const MAX_SEGMENTS: u16 = 64;
const MAX_NOTES: u64 = 64 << 10;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: physical address of the PVH entry point.
const NOTE_PVH_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";

pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

pub fn load(image: &Image, memory: &GuestMemory) -> Result<LoadedKernel, KernelError> {
    let mut header = Elf64_Ehdr::default();
    image.read(0, header.as_mut_slice())?;
    let ident = header.e_ident;
    if (ident[CLASS_AT], ident[DATA_AT]) != (CLASS_64, LITTLE_ENDIAN) || header.e_machine != EM_X86_64 {
        return Err(KernelError::NotAKernel { path: image.path() });
    }
    if header.e_type != ET_EXEC {
        return Err(image.unbootable("it is an ELF file of another kind than a statically linked executable"));
    }
    let segments = program_headers(image, &header)?;
    let loads: Vec<_> = segments.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0).collect();
    let mut end = 0;
    for segment in &loads {
        check_segment(image, segment)?;
        end = end.max(segment.p_paddr + segment.p_memsz);
    }
    let entry = match pvh_entry(image, &segments)? {
        Some(address) => Entry::Pvh { address },
        None => Entry::Long { address: header.e_entry },
    };
    let address = match entry {
        Entry::Pvh { address } => u64::from(address),
        Entry::Long { address } => address,
    };
    if !loads.iter().any(|s| (s.p_paddr..s.p_paddr + s.p_memsz).contains(&address)) {
        return Err(image.unbootable("its entry point lies outside of what it loads"));
    }
    for segment in loads {
        copy_segment(image, segment, memory)?;
    }
    Ok(LoadedKernel { entry, end, setup_header: None })
}

fn program_headers(image: &Image, header: &Elf64_Ehdr) -> Result<Vec<Elf64_Phdr>, KernelError> {
    let count = header.e_phnum;
    if count == 0 || count > MAX_SEGMENTS || usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(image.unbootable("its program headers make no sense"));
    }
    let mut headers = vec![Elf64_Phdr::default(); usize::from(count)];
    let mut at = header.e_phoff;
    for each in &mut headers {
        image.read(at, each.as_mut_slice())?;
        at = at.saturating_add(size_of::<Elf64_Phdr>() as u64);
    }
    Ok(headers)
}

fn check_segment(image: &Image, segment: &Elf64_Phdr) -> Result<(), KernelError> {
    image.check_has(segment.p_offset.saturating_add(segment.p_filesz))?;
    if segment.p_filesz > segment.p_memsz {
        return Err(image.unbootable("a segment is larger in the file than in memory"));
    }
    if segment.p_paddr < HIGH_MEMORY {
        return Err(image.unbootable("a segment lies below 1 MiB"));
    }
    image.check_fits(segment.p_paddr.saturating_add(segment.p_memsz))
}

fn copy_segment(image: &Image, segment: &Elf64_Phdr, guest: &GuestMemory) -> Result<(), KernelError> {
    let failed = |source| KernelError::Read { path: image.path(), source };
    let mut file = image.file;
    file.seek(SeekFrom::Start(segment.p_offset)).map_err(failed)?;
    memory::read_file(guest, RamRange { start: segment.p_paddr, len: segment.p_filesz }, &mut file).map_err(failed)
}

fn pvh_entry(image: &Image, segments: &[Elf64_Phdr]) -> Result<Option<u32>, KernelError> {
    for segment in segments.iter().filter(|s| s.p_type == PT_NOTE && s.p_filesz <= MAX_NOTES) {
        let mut notes = vec![0; segment.p_filesz as usize];
        image.read(segment.p_offset, &mut notes)?;
        if let Some(entry) = find_pvh_note(&notes) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Walks notes with the four-byte alignment that Linux uses.
fn find_pvh_note(mut notes: &[u8]) -> Option<u32> {
    const HEADER: usize = size_of::<Elf64_Nhdr>();
    while let Some((head, rest)) = notes.split_at_checked(HEADER) {
        let mut header = Elf64_Nhdr::default();
        header.as_mut_slice().copy_from_slice(head);
        let (name, rest) = rest.split_at_checked(usize::try_from(header.n_namesz).ok()?)?;
        let rest = rest.get(name.len().wrapping_neg() % 4..)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(header.n_descsz).ok()?)?;
        if header.n_type == NOTE_PVH_ENTRY && name == NOTE_OWNER {
            return value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        }
        notes = rest.get(value.len().wrapping_neg() % 4..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::load_bytes;
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    const TEXT_AT: u64 = 0x1000;
    const LOADED_AT: u64 = 0x20_0000;

    fn note(kind: u32, owner: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len() as u32, value.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [owner, value] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// A kernel of one page of `0x90` at [`LOADED_AT`] with these notes.
    fn vmlinux(notes: &[u8], change: impl FnOnce(&mut Elf64_Ehdr, &mut Elf64_Phdr)) -> Vec<u8> {
        let mut header = Elf64_Ehdr {
            e_type: ET_EXEC,
            e_machine: EM_X86_64,
            e_entry: LOADED_AT + 8,
            e_phoff: size_of::<Elf64_Ehdr>() as u64,
            e_phentsize: size_of::<Elf64_Phdr>() as u16,
            e_phnum: 2,
            ..Default::default()
        };
        header.e_ident[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', CLASS_64, LITTLE_ENDIAN]);
        let mut text = Elf64_Phdr {
            p_type: PT_LOAD,
            p_offset: TEXT_AT,
            p_paddr: LOADED_AT,
            p_filesz: 0x1000,
            p_memsz: 0x3000,
            ..Default::default()
        };
        change(&mut header, &mut text);
        let notes_header =
            Elf64_Phdr { p_type: PT_NOTE, p_offset: 0x800, p_filesz: notes.len() as u64, ..Default::default() };
        let mut bytes = [header.as_slice(), text.as_slice(), notes_header.as_slice()].concat();
        bytes.resize(0x800, 0);
        bytes.extend(notes);
        bytes.resize(TEXT_AT as usize, 0);
        bytes.resize(TEXT_AT as usize + 0x1000, 0x90);
        bytes
    }

    #[test]
    fn segments_land_at_their_physical_addresses() {
        let (loaded, memory) = load_bytes(&vmlinux(&[], |_, _| ()));
        let loaded = loaded.unwrap();
        assert_eq!(loaded.entry, Entry::Long { address: LOADED_AT + 8 });
        assert_eq!(loaded.end, LOADED_AT + 0x3000);
        assert_eq!(memory.read_obj::<u16>(GuestAddress(LOADED_AT + 0xfff)).unwrap(), 0x0090);
    }

    #[test]
    fn the_pvh_note_is_preferred() {
        let notes = [note(3, b"GNU\0", &[1; 5]), note(18, b"Xen\0", &(LOADED_AT + 0x40).to_le_bytes())].concat();
        let loaded = load_bytes(&vmlinux(&notes, |_, _| ())).0.unwrap();
        assert_eq!(loaded.entry, Entry::Pvh { address: LOADED_AT as u32 + 0x40 });
    }

    #[test]
    fn notes_that_lie_about_their_length_end_the_search() {
        let mut notes = note(3, b"GNU\0", &[1; 4]);
        notes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(find_pvh_note(&notes), None);
        assert_eq!(find_pvh_note(&notes[..7]), None);
        assert_eq!(find_pvh_note(&note(18, b"Xen\0", &[1, 2])), None);
    }

    #[test]
    fn a_cut_off_file_is_truncated() {
        let whole = vmlinux(&[], |_, _| ());
        for len in [20, 100, 0x900, whole.len() - 1] {
            let error = load_bytes(&whole[..len]).0.unwrap_err();
            assert!(error.to_string().contains("is truncated"), "{len}: {error}");
        }
    }

    #[test]
    fn segments_must_fit_into_memory() {
        for (paddr, memsz) in [(15 << 20, 2 << 20), (u64::MAX - 0x1000, 0x2000), (LOADED_AT, u64::MAX)] {
            let bytes = vmlinux(&[], |_, text| (text.p_paddr, text.p_memsz) = (paddr, memsz));
            let error = load_bytes(&bytes).0.unwrap_err();
            assert!(matches!(error, KernelError::DoesNotFit { available_mib: 16, .. }), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let cases: [fn(&mut Elf64_Ehdr, &mut Elf64_Phdr); 6] = [
            |h, _| h.e_phnum = 0,
            |h, _| h.e_phentsize = 1,
            |h, _| h.e_type = 3,
            |h, _| h.e_entry = 0,
            |_, t| t.p_paddr = 0x1000,
            |_, t| t.p_memsz = 1,
        ];
        for change in cases {
            let error = load_bytes(&vmlinux(&[], change)).0.unwrap_err();
            assert!(matches!(error, KernelError::Unbootable { .. }), "{error}");
        }
        let error = load_bytes(&vmlinux(&[], |h, _| h.e_machine = 183)).0.unwrap_err();
        assert!(matches!(error, KernelError::NotAKernel { .. }), "{error}");
    }
}
