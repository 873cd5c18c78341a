//! The DSDT: soft-off, and the devices a guest cannot find by itself.
//!
//! ACPI 6.5, sections 5.2.11.1, 6.1, 6.2 and 7.4.2; resource descriptors, section 6.4. Devices are named by the
//! ids Linux's drivers match: `PNP0501` (8250 serial port), `QEMU0001` (pvpanic), `LNRO0005` (virtio-mmio).

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{HEADER_LEN, OEM, OEM_REVISION, OEM_TABLE};
use crate::x86_64::layout::{
    DEVICE_WINDOW, PORT_PVPANIC, PORT_SERIAL, SERIAL_BASE, SERIAL_GSI, SERIAL_REGISTERS, SLEEP_TYPE_S5,
};
use crate::{MmioDevice, PlanError};

/// Revision 2: integers are 64 bits wide.
const REVISION: u8 = 2;
/// Device status: present, enabled, shown, working.
const STATUS_PRESENT: u8 = 0x0f;

/// The DSDT with `devices`.
pub(super) fn table(devices: &[MmioDevice]) -> Result<Sdt, PlanError> {
    let mut aml = Vec::with_capacity(2048);
    let s5 = Package::new(vec![&SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("_S5_"), &s5).to_aml_bytes(&mut aml);

    let mut bus = Vec::with_capacity(2048);
    serial(&mut bus)?;
    pvpanic(&mut bus);
    for (index, device) in (0..).zip(devices) {
        virtio(index, device, &mut bus)?;
    }
    aml.extend_from_slice(&Scope::raw(Path::new("\\_SB_"), bus));

    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&aml);
    Ok(table)
}

/// The serial port, at its ports and in memory: two devices to a guest, of which it uses one. At the ports comes first:
/// that is where kernels look for the first line, with an interrupt that they learn here.
fn serial(bus: &mut Vec<u8>) -> Result<(), PlanError> {
    let ports = ports(PORT_SERIAL, SERIAL_REGISTERS);
    let memory = memory(SERIAL_BASE, SERIAL_REGISTERS.into())?;
    let places: [(&str, &dyn Aml); 2] = [("COM1", &ports), ("COMM", &memory)];
    for ((path, place), id) in places.into_iter().zip(0_u8..) {
        let interrupt = edge_interrupt(SERIAL_GSI);
        device(
            path,
            &[
                &name("_HID", &EISAName::new("PNP0501")),
                &name("_UID", &id),
                &name("_CRS", &ResourceTemplate::new(vec![place, &interrupt])),
            ],
            bus,
        );
    }
    Ok(())
}

/// The port at which a guest says that it panicked.
fn pvpanic(bus: &mut Vec<u8>) {
    let ports = ports(PORT_PVPANIC, 1);
    device(
        "PEVT",
        &[
            &name("_HID", &"QEMU0001"),
            &name("_STA", &STATUS_PRESENT),
            &name("_CRS", &ResourceTemplate::new(vec![&ports])),
        ],
        bus,
    );
}

/// The virtio-mmio device of number `index`.
fn virtio(index: u8, mmio: &MmioDevice, bus: &mut Vec<u8>) -> Result<(), PlanError> {
    let registers = memory(mmio.base, mmio.size)?;
    let interrupt = edge_interrupt(mmio.gsi);
    device(
        // Three digits hold any index: a name is always four characters.
        &format!("V{index:03}"),
        &[
            &name("_HID", &"LNRO0005"),
            &name("_UID", &index),
            // Devices see memory as the CPUs do.
            &name("_CCA", &ONE),
            &name("_CRS", &ResourceTemplate::new(vec![&registers, &interrupt])),
        ],
        bus,
    );
    Ok(())
}

/// Adds a device of a name of four characters.
fn device(path: &str, children: &[&dyn Aml], bus: &mut Vec<u8>) {
    Device::new(Path::new(path), children.to_vec()).to_aml_bytes(bus);
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

/// `len` ports from `first` on, decoded on all 16 address lines.
fn ports(first: u16, len: u8) -> IO {
    IO::new(first, first, 1, len)
}

/// `size` bytes of registers at `base`.
fn memory(base: u64, size: u64) -> Result<Memory32Fixed, PlanError> {
    match (u32::try_from(base), u32::try_from(size)) {
        (Ok(base), Ok(size)) => Ok(Memory32Fixed::new(true, base, size)),
        _ => Err(PlanError::DevicePlace { base, size, start: DEVICE_WINDOW.start, end: DEVICE_WINDOW.end }),
    }
}

/// An interrupt that is the device's own, edge-triggered, active-high.
fn edge_interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}
