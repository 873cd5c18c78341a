//! What lies at a PC's reset vector: a reset.
//!
//! Linux, where it knows of no other way to restart, goes back to real mode and jumps there, as firmware would have
//! it (`machine_real_restart` in `arch/x86/kernel/reboot.c`). A stock kernel built for EFI does so on every machine
//! whose ACPI is hardware-reduced and that has no EFI. Without an answer it would run through zeros for ever.

use super::layout::{ACPI_RESET_VALUE, PORT_ACPI_RESET};

/// Real-mode code that resets the machine through the ACPI reset register. At most 16 bytes: there the first
/// MiB ends.
pub(super) fn code() -> Vec<u8> {
    let [port_low, port_high] = PORT_ACPI_RESET.to_le_bytes();
    vec![
        0xb0,
        ACPI_RESET_VALUE, // mov $value, %al
        0xba,
        port_low,
        port_high, // mov $port, %dx
        0xee,      // out %al, %dx
        0xf4,      // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ]
}
