//! The guest-physical address map: what lies where below 1 MiB, the hole below 4 GiB, and the device windows in it.
//!
//! Owns addresses only; knows no mapping and no KVM.
//!
//! ```text
//! 0x0000_0500  GDT of the 64-bit entry
//! 0x0000_6000  PVH start info, module list, memory map
//! 0x0000_7000  boot_params ("zero page") of the 64-bit entry
//! 0x0000_9000  page tables of the 64-bit entry (to 0xf000)
//! 0x0002_0000  kernel command line
//! 0x0009_fc00  MP table (reserved in the memory map)
//! 0x0010_0000  kernel …                                 … initrd at the top of low RAM
//! 0xc000_0000  end of low RAM at the latest
//! 0xd000_0000  virtio-mmio windows, 4 KiB each
//! 0xfec0_0000  I/O APIC; 0xfee0_0000 local APICs; 0xfffb_c000 KVM's own pages
//! 0x1_0000_0000  rest of RAM
//! ```

use thiserror::Error;

pub const GDT: u64 = 0x500;
pub const PVH_START_INFO: u64 = 0x6000;
pub const PVH_MODULES: u64 = 0x6040;
pub const PVH_MEMORY_MAP: u64 = 0x6080;
pub const BOOT_PARAMS: u64 = 0x7000;
pub const PML4: u64 = 0x9000;
pub const CMDLINE: u64 = 0x2_0000;
/// End of conventional memory; the kernel looks for the MP table in the kibibyte from here.
pub const MP_TABLE: u64 = 0x9_fc00;
pub const HIGH_MEMORY: u64 = 0x10_0000;
pub const LOW_RAM_MAX: u64 = 0xc000_0000;
pub const MMIO_BASE: u64 = 0xd000_0000;
pub const MMIO_WINDOW: u64 = 0x1000;
pub const IO_APIC: u32 = 0xfec0_0000;
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page for KVM's identity map, followed by three for its task state segment.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
pub const KVM_TSS: u64 = KVM_IDENTITY_MAP + 0x1000;
pub const FOUR_GIB: u64 = 1 << 32;

/// The PC's timer.
pub const TIMER_IRQ: u32 = 0;

/// First interrupt given to a device window; the interrupts below belong to the timer, the serial ports and the RTC.
pub const FIRST_IRQ: u32 = 5;
/// Last input of the I/O APIC.
pub const LAST_IRQ: u32 = 23;
/// The RTC's interrupt, which Linux claims on some configurations.
const RTC_IRQ: u32 = 8;

const MIN_MIB: u64 = 16;
const MAX_MIB: u64 = 1 << 20;
const MAX_VCPUS: u8 = 32;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    #[error("Guest memory must be {MIN_MIB} to {MAX_MIB} MiB, not {asked}")]
    MemorySize { asked: u64 },
    #[error("A machine has 1 to {MAX_VCPUS} vCPUs, not {asked}")]
    VcpuCount { asked: u8 },
    #[error("A machine has at most {max} devices, not {asked}: merge disks or drop some")]
    TooManyDevices { asked: usize, max: usize },
}

/// A piece of RAM, in bytes of guest-physical address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRange {
    pub start: u64,
    pub len: u64,
}

impl RamRange {
    #[must_use]
    pub fn end(self) -> u64 {
        self.start + self.len
    }
}

/// Where RAM lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamLayout {
    low: RamRange,
    high: Option<RamRange>,
}

impl RamLayout {
    /// # Errors
    /// When the size is out of range.
    pub fn new(memory_mib: u64) -> Result<Self, LayoutError> {
        if !(MIN_MIB..=MAX_MIB).contains(&memory_mib) {
            return Err(LayoutError::MemorySize { asked: memory_mib });
        }
        let bytes = memory_mib << 20;
        let low = bytes.min(LOW_RAM_MAX);
        let rest = bytes - low;
        Ok(Self {
            low: RamRange { start: 0, len: low },
            high: (rest > 0).then_some(RamRange { start: FOUR_GIB, len: rest }),
        })
    }

    #[must_use]
    pub fn low(&self) -> RamRange {
        self.low
    }

    /// All RAM, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = RamRange> + use<> {
        std::iter::once(self.low).chain(self.high)
    }

    /// What the guest is told it may use: RAM without the legacy hole and the MP table.
    pub fn usable(&self) -> impl Iterator<Item = RamRange> + use<> {
        let conventional = RamRange { start: 0, len: MP_TABLE };
        let low = RamRange { start: HIGH_MEMORY, len: self.low.len - HIGH_MEMORY };
        [conventional, low].into_iter().chain(self.high)
    }
}

/// Checks the number of vCPUs.
///
/// # Errors
/// When there are none or too many.
pub fn check_vcpus(asked: u8) -> Result<u8, LayoutError> {
    if (1..=MAX_VCPUS).contains(&asked) { Ok(asked) } else { Err(LayoutError::VcpuCount { asked }) }
}

/// A device's window and interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub base: u64,
    pub irq: u32,
}

impl Slot {
    /// What tells the guest kernel of the device.
    #[must_use]
    pub fn cmdline(self) -> String {
        format!("virtio_mmio.device=4K@{:#x}:{}", self.base, self.irq)
    }
}

fn irqs() -> impl Iterator<Item = u32> {
    (FIRST_IRQ..=LAST_IRQ).filter(|irq| *irq != RTC_IRQ)
}

/// Windows and interrupts for `count` devices.
///
/// # Errors
/// When there are not enough interrupts.
pub fn slots(count: usize) -> Result<Vec<Slot>, LayoutError> {
    let found: Vec<Slot> =
        (0u64..).zip(irqs()).take(count).map(|(n, irq)| Slot { base: MMIO_BASE + n * MMIO_WINDOW, irq }).collect();
    if found.len() < count {
        return Err(LayoutError::TooManyDevices { asked: count, max: found.len() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_below_the_hole_and_goes_on_above_4_gib() {
        let small = RamLayout::new(128).unwrap();
        assert_eq!(small.ranges().collect::<Vec<_>>(), [RamRange { start: 0, len: 128 << 20 }]);

        let exact = RamLayout::new(3072).unwrap();
        assert_eq!(exact.ranges().count(), 1);
        assert_eq!(exact.low().end(), LOW_RAM_MAX);

        let big = RamLayout::new(8192).unwrap();
        let ranges: Vec<_> = big.ranges().collect();
        assert_eq!(ranges[1], RamRange { start: FOUR_GIB, len: 5 << 30 });
        assert_eq!(ranges.iter().map(|r| r.len).sum::<u64>(), 8 << 30);
    }

    #[test]
    fn usable_memory_leaves_out_the_legacy_hole() {
        let usable: Vec<_> = RamLayout::new(4096).unwrap().usable().collect();
        assert_eq!(usable[0].end(), MP_TABLE);
        assert_eq!(usable[1].start, HIGH_MEMORY);
        assert_eq!(usable[1].end(), LOW_RAM_MAX);
        assert_eq!(usable[2], RamRange { start: FOUR_GIB, len: 1 << 30 });
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(RamLayout::new(0), Err(LayoutError::MemorySize { asked: 0 }));
        assert!(RamLayout::new(u64::MAX).is_err());
        assert!(check_vcpus(0).is_err());
        assert!(check_vcpus(33).is_err());
        assert_eq!(check_vcpus(32), Ok(32));
    }

    #[test]
    fn every_slot_has_a_window_and_an_interrupt_of_its_own() {
        let all = slots(18).unwrap();
        assert_eq!(all[0], Slot { base: MMIO_BASE, irq: 5 });
        assert!(all.iter().all(|s| s.irq != RTC_IRQ && s.irq <= LAST_IRQ));
        assert!(all.windows(2).all(|w| w[0].base < w[1].base && w[0].irq < w[1].irq));
        assert_eq!(all[0].cmdline(), "virtio_mmio.device=4K@0xd0000000:5");
        assert!(matches!(slots(19), Err(LayoutError::TooManyDevices { asked: 19, max: 18 })));
    }
}
