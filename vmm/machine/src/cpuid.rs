//! What CPUID tells the guest: what KVM supports, without virtualization and performance counters, with the topology and
//! the frequencies of this machine. Pure functions on tables; the ioctls are [`crate::vcpu`]'s.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const VENDOR: u32 = 0;
const FEATURES: u32 = 1;
const CACHES: u32 = 4;
const PERFORMANCE: u32 = 0xa;
const TOPOLOGY: u32 = 0xb;
const TSC_RATIO: u32 = 0x15;
const FREQUENCY: u32 = 0x16;
const TOPOLOGY_V2: u32 = 0x1f;
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_FREQUENCY: u32 = 0x4000_0010;
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_SIZES: u32 = 0x8000_0008;
const SVM: u32 = 0x8000_000a;
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_TOPOLOGY: u32 = 0x8000_001e;

const VMX_BIT: u32 = 1 << 5;
const X2APIC_BIT: u32 = 1 << 21;
const TSC_DEADLINE_BIT: u32 = 1 << 24;
const HYPERVISOR_BIT: u32 = 1 << 31;
const HTT_BIT: u32 = 1 << 28;
const SVM_BIT: u32 = 1 << 2;
const CMP_LEGACY_BIT: u32 = 1 << 1;
const TOPOLOGY_EXTENSIONS_BIT: u32 = 1 << 22;
const AMD_COUNTERS_BITS: u32 = 1 << 23 | 1 << 24 | 1 << 28;
const LEVEL_SMT: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;
/// The rate at which KVM's local APIC timer counts, in kHz.
const APIC_KHZ: u32 = 1_000_000;
const BUS_MHZ: u32 = 100;
const INTEL: [u32; 3] = [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ntel"), u32::from_le_bytes(*b"ineI")];

/// The machine as its processors see it.
#[derive(Debug, Clone, Copy)]
pub struct CpuFacts {
    pub vcpus: u8,
    /// `None`: KVM does not know.
    pub tsc_khz: Option<u32>,
    /// KVM's local APIC has the deadline mode; the supported table never says so.
    pub tsc_deadline: bool,
}

/// Number of bits that an APIC id takes.
fn id_bits(vcpus: u8) -> u32 {
    u32::from(vcpus).next_power_of_two().trailing_zeros()
}

/// What is the same for all vCPUs. `supported` is KVM's table.
#[must_use]
pub fn common(supported: &[kvm_cpuid_entry2], facts: CpuFacts) -> Vec<kvm_cpuid_entry2> {
    // Leaves that are made anew here.
    let made = |f: u32| matches!(f, TOPOLOGY | TOPOLOGY_V2 | TSC_RATIO | FREQUENCY | HYPERVISOR_FREQUENCY);
    let mut table: Vec<_> = supported.iter().copied().filter(|e| !made(e.function)).collect();
    let intel = table.iter().any(|e| e.function == VENDOR && [e.ebx, e.ecx, e.edx] == INTEL);
    let others = u32::from(facts.vcpus) - 1;
    for entry in &mut table {
        match entry.function {
            VENDOR => entry.eax = entry.eax.max(if intel { FREQUENCY } else { TOPOLOGY }),
            FEATURES => {
                entry.ecx = entry.ecx & !VMX_BIT | X2APIC_BIT | HYPERVISOR_BIT;
                set(&mut entry.ecx, TSC_DEADLINE_BIT, facts.tsc_deadline);
                set(&mut entry.edx, HTT_BIT, facts.vcpus > 1);
                entry.ebx = entry.ebx & 0x0000_ffff | u32::from(facts.vcpus) << 16;
            }
            CACHES if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { others } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14 | others << 26;
            }
            // Counters are no use to a container and a large surface.
            PERFORMANCE => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            HYPERVISOR => entry.eax = HYPERVISOR_FREQUENCY,
            AMD_FEATURES => {
                entry.ecx &= !(SVM_BIT | AMD_COUNTERS_BITS);
                set(&mut entry.ecx, CMP_LEGACY_BIT, !intel && facts.vcpus > 1);
            }
            SVM => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            AMD_SIZES if !intel => entry.ecx = entry.ecx & !0xf0ff | id_bits(facts.vcpus) << 12 | others,
            AMD_CACHES if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                entry.eax = entry.eax & 0x3fff | if level >= 3 { others << 14 } else { 0 };
            }
            _ => {}
        }
    }
    let topology_extensions = table.iter().any(|e| e.function == AMD_FEATURES && e.ecx & TOPOLOGY_EXTENSIONS_BIT != 0);
    if topology_extensions && !table.iter().any(|e| e.function == AMD_TOPOLOGY) {
        table.push(leaf(AMD_TOPOLOGY, 0, [0; 4]));
    }
    let leaves = if intel { &[TOPOLOGY, TOPOLOGY_V2][..] } else { &[TOPOLOGY] };
    for function in leaves {
        table.push(indexed(*function, 0, [0, 1, LEVEL_SMT, 0]));
        table.push(indexed(*function, 1, [id_bits(facts.vcpus), u32::from(facts.vcpus), 1 | LEVEL_CORE, 0]));
    }
    if let Some(khz) = facts.tsc_khz {
        table.push(leaf(HYPERVISOR_FREQUENCY, 0, [khz, APIC_KHZ, 0, 0]));
        // Only Intel's processors have these. Guests take the crystal for the APIC timer's clock too, which would be
        // wrong: so only where the deadline mode makes that clock irrelevant.
        if let (true, true, Some(hz)) = (intel, facts.tsc_deadline, khz.checked_mul(1000)) {
            table.push(leaf(TSC_RATIO, 0, [1, 1, hz, 0]));
            table.push(leaf(FREQUENCY, 0, [khz / 1000, khz / 1000, BUS_MHZ, 0]));
        }
    }
    table
}

/// Puts in what differs between vCPUs: the APIC id.
pub fn personalize(table: &mut [kvm_cpuid_entry2], id: u8) {
    let id = u32::from(id);
    for entry in table {
        match entry.function {
            FEATURES => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
            TOPOLOGY | TOPOLOGY_V2 => entry.edx = id,
            AMD_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
}

fn set(word: &mut u32, bit: u32, on: bool) {
    *word = if on { *word | bit } else { *word & !bit };
}

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

fn indexed(function: u32, index: u32, values: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf(function, index, values) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD: [u32; 3] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"cAMD"), u32::from_le_bytes(*b"enti")];

    fn supported(vendor: [u32; 3]) -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(VENDOR, 0, [0xd, vendor[0], vendor[1], vendor[2]]),
            leaf(FEATURES, 0, [0x830f10, 0x0508_0800, VMX_BIT | 1, HTT_BIT | 1]),
            indexed(CACHES, 3, [0xffff_c163, 1, 2, 3]),
            leaf(PERFORMANCE, 0, [4, 0, 0, 0x603]),
            indexed(TOPOLOGY, 0, [1, 2, 0x100, 5]),
            leaf(HYPERVISOR, 0, [0x4000_0001, 1, 2, 3]),
            leaf(AMD_FEATURES, 0, [0, 0, SVM_BIT | TOPOLOGY_EXTENSIONS_BIT | 1 << 23 | 1, 0]),
            leaf(AMD_SIZES, 0, [0x3030, 0, 0x7007, 0]),
            leaf(SVM, 0, [1, 8, 0, 0xff]),
        ]
    }

    fn facts(vcpus: u8) -> CpuFacts {
        CpuFacts { vcpus, tsc_khz: Some(2_500_000), tsc_deadline: true }
    }

    fn get(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
        let found: Vec<_> = table.iter().filter(|e| (e.function, e.index) == (function, index)).collect();
        assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
        [found[0].eax, found[0].ebx, found[0].ecx, found[0].edx]
    }

    #[test]
    fn virtualization_and_counters_are_hidden() {
        let table = common(&supported(AMD), facts(1));
        assert_eq!(get(&table, FEATURES, 0)[2] & VMX_BIT, 0);
        let features = get(&table, AMD_FEATURES, 0)[2];
        assert_eq!(features & (SVM_BIT | AMD_COUNTERS_BITS), 0);
        assert_eq!(features & 1, 1, "the rest stays");
        assert_eq!(get(&table, SVM, 0), [0; 4]);
        assert_eq!(get(&table, PERFORMANCE, 0), [0; 4]);
    }

    #[test]
    fn one_processor_has_no_siblings() {
        let table = common(&supported(AMD), facts(1));
        let [_, ebx, ecx, edx] = get(&table, FEATURES, 0);
        assert_eq!((ebx, edx & HTT_BIT), (0x0001_0800, 0));
        assert_eq!(
            ecx & (X2APIC_BIT | TSC_DEADLINE_BIT | HYPERVISOR_BIT),
            X2APIC_BIT | TSC_DEADLINE_BIT | HYPERVISOR_BIT
        );
        assert_eq!(get(&table, AMD_SIZES, 0)[2], 0);
        assert_eq!(get(&table, TOPOLOGY, 1), [0, 1, 0x201, 0]);
    }

    #[test]
    fn topology_counts_vcpus_as_cores_of_one_package() {
        let mut table = common(&supported(AMD), facts(6));
        personalize(&mut table, 5);
        assert_eq!(get(&table, FEATURES, 0)[1], 0x0506_0800);
        assert_eq!(get(&table, TOPOLOGY, 0), [0, 1, 0x100, 5]);
        assert_eq!(get(&table, TOPOLOGY, 1), [3, 6, 0x201, 5]);
        assert_eq!(get(&table, AMD_SIZES, 0)[2], 0x3005);
        assert_eq!(get(&table, AMD_TOPOLOGY, 0)[0], 5);
        let cache = get(&table, CACHES, 3)[0];
        assert_eq!((cache >> 26, cache >> 14 & 0xfff, cache & 0x3fff), (5, 5, 0x163));
    }

    #[test]
    fn frequencies_are_given_where_they_mean_something() {
        let amd = common(&supported(AMD), facts(1));
        assert_eq!(get(&amd, HYPERVISOR_FREQUENCY, 0), [2_500_000, APIC_KHZ, 0, 0]);
        assert_eq!(get(&amd, HYPERVISOR, 0)[0], HYPERVISOR_FREQUENCY);
        assert!(!amd.iter().any(|e| e.function == TSC_RATIO));

        let intel = common(&supported(INTEL), facts(1));
        assert_eq!(get(&intel, TSC_RATIO, 0), [1, 1, 2_500_000_000, 0]);
        assert_eq!(get(&intel, FREQUENCY, 0)[0], 2500);
        assert_eq!(get(&intel, VENDOR, 0)[0], FREQUENCY);

        let unknown = common(&supported(INTEL), CpuFacts { tsc_khz: None, ..facts(1) });
        assert!(!unknown.iter().any(|e| matches!(e.function, TSC_RATIO | FREQUENCY | HYPERVISOR_FREQUENCY)));
    }
}
