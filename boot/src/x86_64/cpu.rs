//! The first state of the boot CPU.
//!
//! Linux's 64-bit entry: long mode, paging on, `rsi` the zero page, interrupts off. PVH: 32-bit protected mode,
//! paging off, flat segments, `ebx` the start info. Registers that are not here start at zero.

use super::layout::{BOOT_STACK, GDT, IDT, PAGE_TABLES, PVH_START_INFO, ZERO_PAGE};

/// A segment register with its hidden part. The fields are those of KVM's `kvm_segment`, as plain integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Intel SDM volume 3, section 3.4.5, says what each field is")]
pub struct SegmentState {
    pub base: u64,
    /// The offset of the last byte, in bytes whatever `g` says.
    pub limit: u32,
    pub selector: u16,
    pub type_: u8,
    pub present: u8,
    pub dpl: u8,
    pub db: u8,
    pub s: u8,
    pub l: u8,
    pub g: u8,
    pub avl: u8,
    pub unusable: u8,
}

/// Where a descriptor table lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Guest address of the first byte.
    pub base: u64,
    /// The offset of the last byte.
    pub limit: u16,
}

/// The registers with which the boot CPU starts; those not here are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuState {
    /// Instruction pointer: the kernel's entry.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// The zero page, for Linux's 64-bit entry.
    pub rsi: u64,
    /// The start info, for PVH.
    pub rbx: u64,
    /// Flags: only the bit that is always set; interrupts are off.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3: the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// Code segment.
    pub cs: SegmentState,
    /// Data segment, for each of DS, ES, FS, GS and SS.
    pub ds: SegmentState,
    /// Task segment, for TR.
    pub tss: SegmentState,
    /// Global descriptor table.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table.
    pub idt: DescriptorTable,
}

const RFLAGS_ALWAYS: u64 = 1 << 1;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Linux's `__BOOT_CS` and `__BOOT_DS`. The task segment, which nothing loads, takes the slot that is left.
const SELECTOR_TSS: u16 = 0x08;
const SELECTOR_CODE: u16 = 0x10;
const SELECTOR_DATA: u16 = 0x18;
const TYPE_CODE: u8 = 0b1011; // execute, read, accessed
const TYPE_DATA: u8 = 0b0011; // read, write, accessed
const TYPE_TSS_BUSY: u8 = 0b1011;
const TSS_LIMIT: u32 = 0x67;

const GDT_LIMIT: u16 = 4 * 8 - 1;
const IDT_LIMIT: u16 = 8 - 1;

/// The state for Linux's 64-bit entry at `entry`.
pub(super) fn long_mode(entry: u64) -> CpuState {
    CpuState {
        rsi: ZERO_PAGE,
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: PAGE_TABLES,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        cs: SegmentState { l: 1, ..flat(SELECTOR_CODE, TYPE_CODE) },
        ..common(entry)
    }
}

/// The state for a PVH entry at `entry`.
pub(super) fn protected_mode(entry: u64) -> CpuState {
    CpuState {
        rbx: PVH_START_INFO,
        cr0: CR0_PE | CR0_ET,
        cs: SegmentState { db: 1, ..flat(SELECTOR_CODE, TYPE_CODE) },
        ..common(entry)
    }
}

/// What both states have in common.
fn common(entry: u64) -> CpuState {
    CpuState {
        rip: entry,
        rsp: BOOT_STACK,
        rflags: RFLAGS_ALWAYS,
        ds: SegmentState { db: 1, ..flat(SELECTOR_DATA, TYPE_DATA) },
        tss: SegmentState {
            limit: TSS_LIMIT,
            selector: SELECTOR_TSS,
            type_: TYPE_TSS_BUSY,
            present: 1,
            ..SegmentState::default()
        },
        gdt: DescriptorTable { base: GDT, limit: GDT_LIMIT },
        idt: DescriptorTable { base: IDT, limit: IDT_LIMIT },
        ..CpuState::default()
    }
}

/// A segment over the whole address space.
fn flat(selector: u16, type_: u8) -> SegmentState {
    SegmentState { limit: u32::MAX, selector, type_, present: 1, s: 1, g: 1, ..SegmentState::default() }
}

/// The GDT that says what `cpu`'s segment registers hold, and right behind it the empty IDT.
pub(super) fn descriptor_tables(cpu: &CpuState) -> Vec<u8> {
    let null = SegmentState::default();
    let no_handler = 0;
    let gdt = [null, cpu.tss, cpu.cs, cpu.ds].map(|segment| descriptor(&segment));
    gdt.into_iter().chain([no_handler]).flat_map(u64::to_le_bytes).collect()
}

/// A segment as it stands in the GDT (Intel SDM volume 3, figure 3-8).
fn descriptor(segment: &SegmentState) -> u64 {
    let limit = if segment.g == 0 { segment.limit } else { segment.limit >> 12 };
    let (base, limit) = (segment.base, u64::from(limit));
    let field = |value: u8, shift: u32| u64::from(value).wrapping_shl(shift);
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | field(segment.type_, 40)
        | field(segment.s, 44)
        | field(segment.dpl, 45)
        | field(segment.present, 47)
        | (limit & 0xf_0000) << 32
        | field(segment.avl, 52)
        | field(segment.l, 53)
        | field(segment.db, 54)
        | field(segment.g, 55)
        | (base & 0xff00_0000) << 32
}
