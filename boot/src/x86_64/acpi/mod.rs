//! The ACPI tables: the only description of the machine a guest gets.
//!
//! Hardware-reduced ACPI (ACPI 6.5, section 3.11.1): no fixed hardware, no SCI, no FACS. All tables lie in one
//! region below 1 MiB, the RSDP first, as section 5.2.5.1 has it for machines without UEFI:
//!
//! - RSDP (5.2.5.3) -> XSDT (5.2.8) -> FADT (5.2.9) and MADT (5.2.12); FADT -> DSDT (5.2.11.1).
//! - The MADT numbers vCPUs from 0, gives each an enabled local APIC, and one IOAPIC whose pins are the GSIs from 4 on.
//! - The DSDT ([`dsdt`]) has the devices. It has no processor objects: Linux needs none to start the CPUs.

mod dsdt;

#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout::{
    ACPI_REGION, ACPI_RESET_VALUE, IOAPIC_BASE, IOAPIC_GSI_BASE, LAPIC_BASE, PORT_ACPI_RESET,
    PORT_ACPI_SLEEP_CONTROL, PORT_ACPI_SLEEP_STATUS, RSDP,
};
use crate::{Machine, PlanError};

const OEM: [u8; 6] = *b"FCREST";
const OEM_TABLE: [u8; 8] = *b"FIRECRST";
const OEM_REVISION: u32 = 1;
const HYPERVISOR: [u8; 8] = *b"FIRECRST";
const HEADER_LEN: u32 = 36;
const TABLE_ALIGN: usize = 16;

/// The tables for `machine`, to lie at [`RSDP`].
pub(super) fn tables(machine: &Machine<'_>) -> Result<Vec<u8>, PlanError> {
    let mut region = Region { bytes: vec![0; Rsdp::len()] };
    let dsdt = region.append(&dsdt::table(machine.devices)?);
    let fadt = region.append(&fadt(dsdt).finalize());
    let madt = region.append(&madt(machine.vcpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = region.append(&xsdt);

    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    region.bytes.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);

    let len = region.bytes.len();
    if len > ACPI_REGION {
        Err(PlanError::AcpiTooLarge { len, limit: ACPI_REGION })
    } else {
        Ok(region.bytes)
    }
}

/// The bytes from [`RSDP`] on.
struct Region {
    bytes: Vec<u8>,
}

impl Region {
    /// Adds a table; returns its guest address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        let offset = self.bytes.len().checked_next_multiple_of(TABLE_ALIGN).unwrap_or(usize::MAX);
        self.bytes.resize(offset, 0);
        table.to_aml_bytes(&mut self.bytes);
        RSDP.saturating_add(offset as u64)
    }
}

/// The FADT: which hardware is absent, how to power off, how to reset.
fn fadt(dsdt: u64) -> FADTBuilder {
    // Section 5.2.9.3. Bit 1 (a keyboard controller) and bit 0 (further legacy devices) stay clear.
    const NO_VGA: u16 = 1 << 2;
    const NO_CMOS_RTC: u16 = 1 << 5;

    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // "The button is not fixed hardware": set, or the guest creates buttons that do not exist.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = port(PORT_ACPI_RESET);
    fadt.reset_value = ACPI_RESET_VALUE;
    fadt.sleep_control_reg = port(PORT_ACPI_SLEEP_CONTROL);
    fadt.sleep_status_reg = port(PORT_ACPI_SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(HYPERVISOR).into();
    fadt
}

/// A register of one byte at an I/O port.
fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

/// The MADT: one local APIC for each vCPU, one IOAPIC, NMI on LINT1 of all.
fn madt(vcpus: u8) -> Sdt {
    const REVISION: u8 = 6;
    const NO_PIC: u32 = 0; // flags: PCAT_COMPAT clear
    // Section 5.2.12.7: type, length, all processors, flags (two bytes: as the bus has it), LINT number.
    const NMI_ON_LINT1: [u8; 6] = [4, 6, 0xff, 0, 0, 1];

    let mut body = Vec::with_capacity(1024);
    body.extend_from_slice(&low_half(LAPIC_BASE).to_le_bytes());
    body.extend_from_slice(&NO_PIC.to_le_bytes());
    for id in 0..vcpus {
        ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut body);
    }
    IoApic::new(0, low_half(IOAPIC_BASE), IOAPIC_GSI_BASE).to_aml_bytes(&mut body);
    body.extend_from_slice(&NMI_ON_LINT1);

    let mut table = Sdt::new(*b"APIC", HEADER_LEN, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&body);
    table
}

/// The low half of an address below 4 GiB.
const fn low_half(address: u64) -> u32 {
    (address & 0xffff_ffff) as u32
}
