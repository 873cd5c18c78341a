//! PVH's start info: what the 32-bit entry finds at `ebx`.
//!
//! Xen's `docs/misc/pvh.pandoc` and `include/public/arch-x86/hvm/start_info.h`, version 1. The structure, the
//! module list and the memory map share one page.

use std::ops::Range;

use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;

use super::layout::{CMDLINE, PVH_START_INFO, RSDP};
use super::memory_map::Entry;

const VERSION: u32 = 1;
const START_INFO_LEN: u64 = size_of::<hvm_start_info>() as u64;
const MODULE_LEN: u64 = size_of::<hvm_modlist_entry>() as u64;

/// The start info, the module list if there is an initrd, and the memory map, one after the other.
pub(super) fn bytes(map: &[Entry], initrd: Option<Range<u64>>) -> Vec<u8> {
    let modules = PVH_START_INFO.saturating_add(START_INFO_LEN);
    let module = initrd.map(|Range { start, end }| hvm_modlist_entry {
        paddr: start,
        size: end.saturating_sub(start),
        ..Default::default()
    });
    let mut start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: RSDP,
        memmap_paddr: modules,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    if module.is_some() {
        start_info.nr_modules = 1;
        start_info.modlist_paddr = modules;
        start_info.memmap_paddr = modules.saturating_add(MODULE_LEN);
    }

    let mut bytes = Vec::from(start_info.as_slice());
    if let Some(module) = module {
        bytes.extend_from_slice(module.as_slice());
    }
    for Entry { range, kind } in map {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.end.saturating_sub(range.start),
            type_: *kind,
            reserved: 0,
        };
        bytes.extend_from_slice(entry.as_slice());
    }
    bytes
}
