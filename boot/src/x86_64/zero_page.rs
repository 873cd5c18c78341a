//! Linux's zero page, `boot_params`: what the 64-bit entry finds at `rsi`.
//!
//! `Documentation/arch/x86/boot.rst` and `zero-page.rst`. A bzImage's own setup header is handed back to it with
//! the loader's fields filled in; an ELF has none, and gets one that says only what is true of us. Everything not
//! written is zero, the sentinel above all: the kernel takes another value for a loader that left rubbish.

use std::ops::Range;

use linux_loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::layout::{CMDLINE, RSDP};
use super::memory_map::Entry;
use crate::image::Kernel;

const BOOT_FLAG: u16 = 0xaa55;
const SIGNATURE: u32 = u32::from_le_bytes(*b"HdrS");
/// The protocol version whose header we write for an ELF.
const VERSION: u16 = 0x020f;
/// A boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;

/// The zero page. Fewer map entries than the page holds, an initrd below 4 GiB: both checked before.
pub(super) fn bytes(
    kernel: &Kernel,
    map: &[Entry],
    initrd: Option<Range<u64>>,
    cmdline_len: usize,
) -> Vec<u8> {
    let mut header = match kernel {
        Kernel::BzImage { header } => *header,
        Kernel::Elf { .. } => setup_header {
            boot_flag: BOOT_FLAG,
            header: SIGNATURE,
            version: VERSION,
            loadflags: LOADED_HIGH,
            cmdline_size: low_half(cmdline_len as u64),
            ..setup_header::default()
        },
    };
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = low_half(CMDLINE);
    let initrd = initrd.unwrap_or_default();
    header.ramdisk_image = low_half(initrd.start);
    header.ramdisk_size = low_half(initrd.end.saturating_sub(initrd.start));
    // Neither is ours to give: no setup_data list, no real-mode heap.
    header.setup_data = 0;
    header.heap_end_ptr = 0;

    let mut page = boot_params { acpi_rsdp_addr: RSDP, hdr: header, ..boot_params::default() };
    for (slot, entry) in page.e820_table.iter_mut().zip(map) {
        let Range { start, end } = entry.range;
        *slot = boot_e820_entry { addr: start, size: end.saturating_sub(start), r#type: entry.kind };
        page.e820_entries = page.e820_entries.saturating_add(1);
    }
    page.as_slice().to_vec()
}

/// The low half of a value that has no high half.
fn low_half(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
