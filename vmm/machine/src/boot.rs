//! What a kernel finds in memory at its first instruction: command line, memory map, initrd, MP table, and the tables of
//! its boot protocol. Knows no KVM; registers are [`crate::registers`]'.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dewar_virtio::GuestMemory;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::kernel::{Entry, LoadedKernel};
use crate::layout::{self, RamLayout, RamRange};
use crate::{memory, mptable};

/// `COMMAND_LINE_SIZE` of x86, with its final NUL.
const CMDLINE_MAX: usize = 2048;
const PAGE: u64 = 4096;
const E820_RAM: u32 = 1;
/// "Undefined" boot loader.
const LOADER_TYPE: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
const INITRD_MAX_DEFAULT: u64 = 0x7fff_ffff;
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x80;
/// Null, null, 64-bit code, data, as the 64-bit protocol asks for.
pub const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

#[derive(Debug, Error)]
pub enum BootError {
    #[error("Could not open the initrd {}", path.display())]
    OpenInitrd {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Could not read the initrd {}", path.display())]
    ReadInitrd {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("The initrd {} is empty", path.display())]
    EmptyInitrd { path: PathBuf },
    #[error("The kernel and the initrd {} ({initrd_mib} MiB) do not fit into {available_mib} MiB of memory: \
             give the machine more", path.display())]
    InitrdDoesNotFit { path: PathBuf, initrd_mib: u64, available_mib: u64 },
    #[error("The kernel command line has {actual} bytes and may have {max}")]
    CmdlineTooLong { actual: usize, max: usize },
    #[error("The kernel command line holds a NUL byte")]
    CmdlineNul,
    #[error("Could not write boot data to guest memory")]
    Write {
        #[source]
        source: GuestMemoryError,
    },
}

/// Joins the configured command line and the devices.
///
/// # Errors
/// When the kernel would cut it off.
pub fn cmdline(configured: &str, slots: &[layout::Slot]) -> Result<Vec<u8>, BootError> {
    let mut text = configured.trim().to_owned();
    // What follows " -- " belongs to init: the devices go before.
    let init_args = text.find(" -- ").map(|at| text.split_off(at));
    for slot in slots {
        text.push(' ');
        text.push_str(&slot.cmdline());
    }
    text.push_str(init_args.as_deref().unwrap_or_default());
    let mut bytes = text.trim_start().as_bytes().to_vec();
    if bytes.contains(&0) {
        return Err(BootError::CmdlineNul);
    }
    if bytes.len() >= CMDLINE_MAX {
        return Err(BootError::CmdlineTooLong { actual: bytes.len(), max: CMDLINE_MAX - 1 });
    }
    bytes.push(0);
    Ok(bytes)
}

/// Puts the initrd at the top of low RAM, above the kernel.
///
/// # Errors
/// When it cannot be read or does not fit.
pub fn load_initrd(
    path: &Path,
    guest: &GuestMemory,
    ram: RamRange,
    kernel: &LoadedKernel,
) -> Result<RamRange, BootError> {
    let file = File::open(path).map_err(|source| BootError::OpenInitrd { path: path.to_owned(), source })?;
    let metadata = file.metadata().map_err(|source| BootError::ReadInitrd { path: path.to_owned(), source })?;
    let len = metadata.len();
    if len == 0 {
        return Err(BootError::EmptyInitrd { path: path.to_owned() });
    }
    let limit = match kernel.setup_header {
        Some(header) => u64::from(header.initrd_addr_max),
        None => INITRD_MAX_DEFAULT,
    };
    let top = ram.end().min(limit.saturating_add(1));
    let start = top.checked_sub(len).map(|start| start & !(PAGE - 1)).filter(|start| *start >= kernel.end);
    let Some(start) = start else {
        let (initrd_mib, available_mib) = (len.div_ceil(1 << 20), ram.end() >> 20);
        return Err(BootError::InitrdDoesNotFit { path: path.to_owned(), initrd_mib, available_mib });
    };
    let range = RamRange { start, len };
    memory::read_file(guest, range, &mut &file)
        .map_err(|source| BootError::ReadInitrd { path: path.to_owned(), source })?;
    Ok(range)
}

/// What [`write()`] needs to know of the machine.
pub struct BootInfo<'a> {
    pub ram: &'a RamLayout,
    pub kernel: &'a LoadedKernel,
    pub initrd: Option<RamRange>,
    /// With its final NUL.
    pub cmdline: &'a [u8],
    pub vcpus: u8,
    /// Connected to the I/O APIC.
    pub irqs: &'a [u32],
}

/// Writes everything but kernel and initrd.
///
/// # Errors
/// When guest memory has a hole where there should be none.
pub fn write(memory: &GuestMemory, info: &BootInfo) -> Result<(), BootError> {
    write_all(memory, info).map_err(|source| BootError::Write { source })
}

fn write_all(memory: &GuestMemory, info: &BootInfo) -> Result<(), GuestMemoryError> {
    memory.write_slice(info.cmdline, GuestAddress(layout::CMDLINE))?;
    memory.write_slice(&mptable::build(info.vcpus, info.irqs), GuestAddress(layout::MP_TABLE))?;
    match info.kernel.entry {
        Entry::Pvh { .. } => write_start_info(memory, info),
        Entry::Long { .. } => {
            write_boot_params(memory, info)?;
            write_page_tables(memory)
        }
    }
}

fn write_start_info(memory: &GuestMemory, info: &BootInfo) -> Result<(), GuestMemoryError> {
    let mut entries = 0;
    for range in info.ram.usable() {
        let entry =
            hvm_memmap_table_entry { addr: range.start, size: range.len, type_: XEN_HVM_MEMMAP_TYPE_RAM, reserved: 0 };
        let at = layout::PVH_MEMORY_MAP + u64::from(entries) * size_of::<hvm_memmap_table_entry>() as u64;
        memory.write_obj(entry, GuestAddress(at))?;
        entries += 1;
    }
    if let Some(initrd) = info.initrd {
        let module = hvm_modlist_entry { paddr: initrd.start, size: initrd.len, ..Default::default() };
        memory.write_obj(module, GuestAddress(layout::PVH_MODULES))?;
    }
    let start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(info.initrd.is_some()),
        modlist_paddr: if info.initrd.is_some() { layout::PVH_MODULES } else { 0 },
        cmdline_paddr: layout::CMDLINE,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: entries,
        ..Default::default()
    };
    memory.write_obj(start_info, GuestAddress(layout::PVH_START_INFO))
}

fn write_boot_params(memory: &GuestMemory, info: &BootInfo) -> Result<(), GuestMemoryError> {
    let mut params = boot_params::default();
    if let Some(header) = info.kernel.setup_header {
        params.hdr = header;
    } else {
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.kernel_alignment = 2 << 20;
    }
    params.hdr.type_of_loader = LOADER_TYPE;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    params.hdr.cmdline_size = info.cmdline.len() as u32;
    if let Some(initrd) = info.initrd {
        // The initrd lies below 3 GiB.
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = initrd.len as u32;
    }
    let mut entries = 0;
    let mut table = params.e820_table;
    for (slot, range) in table.iter_mut().zip(info.ram.usable()) {
        *slot = boot_e820_entry { addr: range.start, size: range.len, r#type: E820_RAM };
        entries += 1;
    }
    params.e820_table = table;
    params.e820_entries = entries;
    memory.write_obj(params, GuestAddress(layout::BOOT_PARAMS))
}

/// An identity map of the first 4 GiB in 2 MiB pages, and the descriptor table.
fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let (pdpt, directories) = (layout::PML4 + PAGE, layout::PML4 + 2 * PAGE);
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    for gib in 0..4 {
        memory.write_obj((directories + gib * PAGE) | PRESENT_WRITABLE, GuestAddress(pdpt + gib * 8))?;
    }
    let pages: Vec<u8> =
        (0..4 * 512u64).flat_map(|n| ((n << 21) | PRESENT_WRITABLE | LARGE_PAGE).to_le_bytes()).collect();
    memory.write_slice(&pages, GuestAddress(directories))?;
    let gdt: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    memory.write_slice(&gdt, GuestAddress(layout::GDT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kernel(entry: Entry) -> LoadedKernel {
        LoadedKernel { entry, end: 4 << 20, setup_header: None }
    }

    fn written(entry: Entry, mib: u64) -> GuestMemory {
        let ram = RamLayout::new(mib).unwrap();
        let memory = memory::map(&ram, false).unwrap();
        let initrd = Some(RamRange { start: 0x80_0000, len: 77 });
        let info = BootInfo { ram: &ram, kernel: &kernel(entry), initrd, cmdline: b"quiet\0", vcpus: 2, irqs: &[0] };
        write(&memory, &info).unwrap();
        memory
    }

    #[test]
    fn devices_follow_the_configured_command_line_and_precede_init_arguments() {
        let slots = layout::slots(2).unwrap();
        let line = |text| String::from_utf8(cmdline(text, &slots).unwrap()).unwrap();
        let devices = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
        assert_eq!(line("quiet panic=-1 "), format!("quiet panic=-1 {devices}\0"));
        assert_eq!(line(""), format!("{devices}\0"));
        assert_eq!(line("quiet -- a b"), format!("quiet {devices} -- a b\0"));
    }

    #[test]
    fn command_lines_that_the_kernel_would_cut_off_are_refused() {
        assert!(cmdline(&"x".repeat(2047), &[]).is_ok());
        let error = cmdline(&"x".repeat(2048), &[]).unwrap_err();
        assert_eq!(error.to_string(), "The kernel command line has 2048 bytes and may have 2047");
        assert!(matches!(cmdline("a\0b", &[]), Err(BootError::CmdlineNul)));
    }

    #[test]
    fn pvh_start_info_points_to_everything() {
        let memory = written(Entry::Pvh { address: 0x10_0000 }, 4096);
        let info: hvm_start_info = memory.read_obj(GuestAddress(layout::PVH_START_INFO)).unwrap();
        assert_eq!((info.magic, info.version, info.nr_modules, info.memmap_entries), (0x336e_c578, 1, 1, 3));
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x80_0000, 77));
        let last: hvm_memmap_table_entry = memory.read_obj(GuestAddress(info.memmap_paddr + 48)).unwrap();
        assert_eq!((last.addr, last.size, last.type_), (1 << 32, 1 << 30, 1));
        assert_eq!(memory.read_obj::<[u8; 6]>(GuestAddress(info.cmdline_paddr)).unwrap(), *b"quiet\0");
    }

    #[test]
    fn boot_params_and_the_identity_map_are_complete() {
        let memory = written(Entry::Long { address: 0x10_0000 }, 16);
        let params: boot_params = memory.read_obj(GuestAddress(layout::BOOT_PARAMS)).unwrap();
        let (image, size, line) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size, params.hdr.cmd_line_ptr);
        assert_eq!((image, size, line, params.e820_entries), (0x80_0000, 77, 0x2_0000, 2));
        let last: u64 = memory.read_obj(GuestAddress(layout::PML4 + 6 * PAGE - 8)).unwrap();
        assert_eq!(last, (layout::FOUR_GIB - (2 << 20)) | 0x83);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(layout::GDT + 16)).unwrap(), GDT[2]);
    }

    #[test]
    fn the_initrd_lies_at_the_top_and_never_on_the_kernel() {
        let ram = RamLayout::new(16).unwrap();
        let memory = memory::map(&ram, false).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let load = |path: &Path| load_initrd(path, &memory, ram.low(), &kernel(Entry::Long { address: 0 }));

        assert!(matches!(load(file.path()), Err(BootError::EmptyInitrd { .. })));
        file.write_all(&[7; 5000]).unwrap();
        let range = load(file.path()).unwrap();
        assert_eq!(range, RamRange { start: (16 << 20) - 8192, len: 5000 });
        assert_eq!(memory.read_obj::<u8>(GuestAddress(range.end() - 1)).unwrap(), 7);

        file.as_file().set_len(13 << 20).unwrap();
        let error = load(file.path()).unwrap_err();
        assert!(matches!(error, BootError::InitrdDoesNotFit { initrd_mib: 13, available_mib: 16, .. }), "{error}");
        assert!(matches!(load(Path::new("/nonexistent")), Err(BootError::OpenInitrd { .. })));
    }
}
