//! The boot processor's registers at the kernel's first instruction. Pure functions on register sets.

use kvm_bindings::{kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};

use crate::boot::GDT;
use crate::kernel::Entry;
use crate::layout;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 always reads as one.
const RFLAGS: u64 = 2;
const CODE_READ_ACCESSED: u8 = 0xb;
const DATA_WRITE_ACCESSED: u8 = 0x3;
const BUSY_TSS: u8 = 0xb;
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// MTRRs on, everything write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Model-specific registers that every vCPU starts with.
#[must_use]
pub fn msrs() -> [kvm_msr_entry; 2] {
    [(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), (MSR_MTRR_DEFAULT, MTRR_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() })
}

/// General registers at `entry`.
#[must_use]
pub fn general(entry: Entry) -> kvm_regs {
    match entry {
        Entry::Pvh { address } => {
            kvm_regs { rip: address.into(), rbx: layout::PVH_START_INFO, rflags: RFLAGS, ..Default::default() }
        }
        Entry::Long { address } => {
            kvm_regs { rip: address, rsi: layout::BOOT_PARAMS, rflags: RFLAGS, ..Default::default() }
        }
    }
}

fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { limit: u32::MAX, selector, type_, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}

/// Brings `sregs`, as KVM has them after reset, into the mode that `entry` wants.
pub fn system(sregs: &mut kvm_sregs, entry: Entry) {
    let data = flat(DATA_SELECTOR, DATA_WRITE_ACCESSED);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cs = flat(CODE_SELECTOR, CODE_READ_ACCESSED);
    sregs.tr = kvm_segment { limit: 0x67, type_: BUSY_TSS, present: 1, ..Default::default() };
    sregs.cr0 = CR0_PE | CR0_ET;
    if let Entry::Long { .. } = entry {
        (sregs.cs.l, sregs.cs.db) = (1, 0);
        sregs.gdt = kvm_dtable { base: layout::GDT, limit: size_of_val(&GDT) as u16 - 1, ..Default::default() };
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = layout::PML4;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pvh_starts_in_protected_mode_without_paging() {
        let entry = Entry::Pvh { address: 0x100_0040 };
        let mut sregs = kvm_sregs::default();
        system(&mut sregs, entry);
        assert_eq!((sregs.cr0 & CR0_PG, sregs.efer, sregs.cs.l, sregs.cs.db), (0, 0, 0, 1));
        assert_eq!((general(entry).rip, general(entry).rbx), (0x100_0040, layout::PVH_START_INFO));
    }

    #[test]
    fn the_64_bit_entry_starts_in_long_mode_on_the_identity_map() {
        let entry = Entry::Long { address: 0x10_0200 };
        let mut sregs = kvm_sregs::default();
        system(&mut sregs, entry);
        assert_eq!(sregs.cr0 & (CR0_PG | CR0_PE), CR0_PG | CR0_PE);
        assert_eq!((sregs.cr3, sregs.efer, sregs.cs.l, sregs.cs.db), (layout::PML4, 0x500, 1, 0));
        assert_eq!(general(entry).rsi, layout::BOOT_PARAMS);
    }
}
