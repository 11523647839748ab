//! The MP table (Intel MultiProcessor Specification 1.4): tells a guest without ACPI of its processors and its I/O APIC.
//!
//! Owns the bytes; where they lie is [`crate::layout`]'s.

use crate::layout::{IO_APIC, LOCAL_APIC, MP_TABLE};

const FLOATING_LEN: usize = 16;
const HEADER_LEN: usize = 44;
const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_IO_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;
const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;
const APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
/// Family 6, model 0, stepping 0; Linux takes the true values from CPUID.
const CPU_SIGNATURE: u32 = 0x600;
/// APIC and FPU present.
const CPU_FEATURES: u32 = 0x201;
const INTERRUPT_INT: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXT_INT: u8 = 3;
const ALL_LOCAL_APICS: u8 = 0xff;

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

/// An interrupt assignment entry: same polarity and trigger as the bus (ISA: edge, active high).
fn interrupt(entry: u8, kind: u8, source: u8, destination: u8, input: u8) -> [u8; 8] {
    [entry, kind, 0, 0, 0, source, destination, input]
}

/// The table for `vcpus` processors with APIC ids from 0, as it lies at [`MP_TABLE`].
///
/// Only `irqs` are connected: Linux sets up each connected input of the I/O APIC at boot, in some ten accesses that are an
/// exit each.
#[must_use]
pub fn build(vcpus: u8, irqs: &[u32]) -> Vec<u8> {
    let io_apic_id = vcpus;
    let mut entries: Vec<u8> = Vec::with_capacity(1008);
    let mut count: u16 = 0;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = CPU_ENABLED | if id == 0 { CPU_BOOT } else { 0 };
        let mut entry = [0; 20];
        entry[..4].copy_from_slice(&[ENTRY_PROCESSOR, id, APIC_VERSION, flags]);
        entry[4..8].copy_from_slice(&CPU_SIGNATURE.to_le_bytes());
        entry[8..12].copy_from_slice(&CPU_FEATURES.to_le_bytes());
        add(&entry);
    }
    add(&[ENTRY_BUS, 0, b'I', b'S', b'A', b' ', b' ', b' ']);
    let address = IO_APIC.to_le_bytes();
    add(&[ENTRY_IO_APIC, io_apic_id, IO_APIC_VERSION, 1, address[0], address[1], address[2], address[3]]);
    for irq in irqs.iter().map(|irq| *irq as u8) {
        add(&interrupt(ENTRY_IO_INTERRUPT, INTERRUPT_INT, irq, io_apic_id, irq));
    }
    add(&interrupt(ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXT_INT, 0, 0, 0));
    add(&interrupt(ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, ALL_LOCAL_APICS, 1));

    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(b"PCMP");
    header[4..6].copy_from_slice(&((HEADER_LEN + entries.len()) as u16).to_le_bytes());
    header[6] = 4;
    header[8..16].copy_from_slice(b"DEWAR   ");
    header[16..28].copy_from_slice(b"MICROVM     ");
    header[34..36].copy_from_slice(&count.to_le_bytes());
    header[36..40].copy_from_slice(&LOCAL_APIC.to_le_bytes());
    header[7] = checksum(&header).wrapping_add(checksum(&entries));

    let mut floating = [0; FLOATING_LEN];
    floating[..4].copy_from_slice(b"_MP_");
    floating[4..8].copy_from_slice(&(MP_TABLE as u32 + FLOATING_LEN as u32).to_le_bytes());
    floating[8] = 1;
    floating[9] = 4;
    floating[10] = checksum(&floating);

    [&floating[..], &header, &entries].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LAST_IRQ;

    /// Where the legacy hole begins, and the area ends that the kernel searches.
    const MP_TABLE_END: u64 = 0xa_0000;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |s: u8, b| s.wrapping_add(*b))
    }

    fn every_irq() -> Vec<u32> {
        (0..=LAST_IRQ).collect()
    }

    #[test]
    fn checksums_are_zero_and_the_largest_table_fits() {
        for vcpus in [1, 2, 32] {
            let table = build(vcpus, &every_irq());
            assert!(MP_TABLE + table.len() as u64 <= MP_TABLE_END, "{} bytes", table.len());
            assert_eq!(sum(&table[..16]), 0);
            assert_eq!(sum(&table[16..]), 0);
            let length = u16::from_le_bytes([table[20], table[21]]);
            assert_eq!(usize::from(length), table.len() - 16);
        }
    }

    #[test]
    fn exactly_the_first_processor_is_the_boot_processor() {
        let table = build(3, &[]);
        let cpus: Vec<_> = table[60..120].chunks(20).map(|e| (e[0], e[1], e[3])).collect();
        assert_eq!(cpus, [(0, 0, 3), (0, 1, 1), (0, 2, 1)]);
    }

    #[test]
    fn the_count_matches_the_entries() {
        let table = build(2, &[0, 4, 23]);
        let mut at = 60;
        let mut found = 0u16;
        while at < table.len() {
            at += if table[at] == 0 { 20 } else { 8 };
            found += 1;
        }
        assert_eq!(at, table.len());
        assert_eq!(u16::from_le_bytes([table[50], table[51]]), found);
    }
}
