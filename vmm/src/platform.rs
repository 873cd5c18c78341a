//! What a guest finds at its I/O ports and in its MMIO gap, and who answers there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firecrest_boot::layout;
use firecrest_devices::ioapic::{self, IoApic};
use firecrest_devices::power::{self, Register, Request};
use firecrest_devices::serial;
use kvm_ioctls::IoEventAddress;

use crate::coalesced::Ring;
use crate::console::Port;
use crate::devices::DeviceSet;
use crate::exit::{CrashReason, Exit, ResetCause};
use crate::interrupt::Routes;

/// The keyboard controller's command port.
const PORT_KEYBOARD: u16 = 0x64;

/// What reading a port or an address gives where there is nothing.
const NOTHING: u8 = 0xff;

// What the firmware tables say and what the devices do is written down on both sides, which know nothing of one
// another. This is where they meet.
const _: () = assert!(
    layout::SLEEP_TYPE_S5 == power::SLEEP_TYPE_S5
        && layout::ACPI_RESET_VALUE == power::RESET_VALUE
        && layout::IOAPIC_PINS == ioapic::PINS as u32
        && layout::SERIAL_REGISTERS as u16 == serial::REGISTERS
        && layout::SERIAL_PAGE == layout::SERIAL_BASE + serial::PAGED[0] as u64
);

/// An access that ends the run.
#[derive(Debug)]
pub(crate) enum Ending {
    Exit(Exit),
    Crash(CrashReason),
}

/// The devices that every VM has.
pub(crate) struct Platform {
    serial: Arc<Port>,
    /// With what KVM has kept of the writes to both it and the serial port.
    ioapic: Mutex<(IoApic<Routes>, Option<Ring>)>,
    devices: Arc<DeviceSet>,
}

/// The registers of which KVM may keep writes, where it can, and their sizes.
pub(crate) fn kept_registers() -> [(IoEventAddress, u32); 3] {
    let (select, size) = ioapic::SELECT;
    [
        (IoEventAddress::Mmio(layout::IOAPIC_BASE.saturating_add(select)), size),
        (IoEventAddress::Mmio(layout::SERIAL_BASE.saturating_add(serial::TRANSMIT.into())), 1),
        (IoEventAddress::Pio(layout::PORT_SERIAL.saturating_add(serial::TRANSMIT.into()).into()), 1),
    ]
}

/// Who answers at a port.
enum Target {
    Serial(u8),
    Power(Register),
    Nobody,
}

fn target(port: u16) -> Target {
    let serial = port.wrapping_sub(layout::PORT_SERIAL);
    match port {
        _ if serial < serial::REGISTERS => Target::Serial(serial.to_le_bytes()[0]),
        PORT_KEYBOARD => Target::Power(Register::KeyboardCommand),
        layout::PORT_ACPI_SLEEP_CONTROL => Target::Power(Register::SleepControl),
        layout::PORT_ACPI_SLEEP_STATUS => Target::Power(Register::SleepStatus),
        layout::PORT_ACPI_RESET => Target::Power(Register::Reset),
        layout::PORT_PVPANIC => Target::Power(Register::Panic),
        _ => Target::Nobody,
    }
}

impl Platform {
    /// `ring` is where KVM puts what it may of the writes to the IOAPIC.
    pub(crate) fn new(
        serial: Arc<Port>,
        routes: Routes,
        ring: Option<Ring>,
        devices: Arc<DeviceSet>,
    ) -> Self {
        // The serial port has the first pin.
        let pins = (1..=ioapic::PINS).nth(devices.len()).unwrap_or(ioapic::PINS);
        Self { serial, ioapic: Mutex::new((IoApic::new(routes, pins), ring)), devices }
    }

    /// Port output: `data` holds one or more accesses of `size` bytes, all to `port`.
    pub(crate) fn port_write(&self, port: u16, size: usize, data: &[u8]) -> Option<Ending> {
        data.chunks(size.max(1)).flat_map(|access| (port..=u16::MAX).zip(access)).find_map(|(port, byte)| {
            match target(port) {
                Target::Serial(offset) => self.serial_write(port.into(), offset, *byte),
                Target::Power(register) => {
                    return power::write(register, *byte).map(|r| Ending::Exit(exit(r)));
                }
                Target::Nobody => {}
            }
            None
        })
    }

    /// Port input: fills `data` with one or more accesses of `size` bytes, all from `port`.
    pub(crate) fn port_read(&self, port: u16, size: usize, data: &mut [u8]) {
        data.fill(NOTHING);
        for (port, byte) in data.chunks_mut(size.max(1)).flat_map(|access| (port..=u16::MAX).zip(access)) {
            *byte = match target(port) {
                Target::Serial(offset) => self.serial_read(offset),
                Target::Power(register) => power::read(register),
                Target::Nobody => NOTHING,
            };
        }
    }

    /// A write to guest physical address space where there is no memory.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) -> Option<Ending> {
        if serial_register(address).is_some() {
            for (address, byte) in (address..).zip(data) {
                let Some(offset) = serial_register(address) else { break };
                self.serial_write(address, offset, *byte);
            }
            return None;
        }
        let Some(offset) = ioapic_offset(address) else {
            self.devices.write(address, data);
            return None;
        };
        let written = {
            let (apic, ring) = &mut *self.settled();
            ring.iter_mut().for_each(|ring| ring.begin(address));
            apic.write(offset, data)
        };
        written.err().map(|error| Ending::Crash(CrashReason::Routing(error.to_string())))
    }

    /// A read from guest physical address space where there is no memory.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if let Some(offset) = ioapic_offset(address) {
            self.settled().0.read(offset, data);
        } else if serial_register(address).is_some() {
            for (address, byte) in (address..).zip(data) {
                *byte = serial_register(address).map_or(NOTHING, |offset| self.serial_read(offset));
            }
        } else if !self.devices.read(address, data) {
            data.fill(NOTHING);
        }
    }

    /// Does what KVM has kept, and says whether somebody has to look for more. `rested` says that
    /// [`PATIENCE`](crate::coalesced::PATIENCE) has passed since it was last said.
    pub(crate) fn collect(&self, rested: bool) -> bool {
        let (_, ring) = &mut *self.settled();
        ring.as_mut().is_some_and(|ring| {
            if rested {
                ring.rest();
            }
            ring.is_watched()
        })
    }

    fn serial_read(&self, offset: u8) -> u8 {
        let _settled = self.settled();
        self.serial.read(offset)
    }

    /// A vCPU's own write to the serial port, found at `address`.
    fn serial_write(&self, address: u64, offset: u8, value: u8) {
        let (_, ring) = &mut *self.settled();
        let is_watched = ring.as_ref().is_some_and(Ring::is_watched);
        let may_lag = self.serial.write(offset, value, is_watched);
        if let Some(ring) = ring {
            if !may_lag {
                ring.shut();
            } else if offset == serial::TRANSMIT {
                ring.begin(address);
                if ring.open() {
                    self.serial.wake();
                }
            }
        }
    }

    /// The devices of which KVM keeps writes, with those done that it has kept.
    fn settled(&self) -> MutexGuard<'_, (IoApic<Routes>, Option<Ring>)> {
        let mut guard = self.ioapic.lock().unwrap_or_else(PoisonError::into_inner);
        let (apic, ring) = &mut *guard;
        let is_watched = ring.as_ref().is_some_and(Ring::is_watched);
        // What this vCPU wrote before is among as many as there is room for; another may go on writing for ever.
        for _ in 0..Ring::PLACES {
            let Some(write) = ring.as_mut().and_then(Ring::take) else { break };
            let byte = write.data().first();
            match (ioapic_offset(write.address), byte) {
                // It can only have selected a register, which does not fail.
                (Some(offset), _) => drop(apic.write(offset, write.data())),
                (None, Some(byte)) => _ = self.serial.write(serial::TRANSMIT, *byte, is_watched),
                (None, None) => {}
            }
        }
        guard
    }
}

fn serial_register(address: u64) -> Option<u8> {
    let offset = u8::try_from(address.checked_sub(layout::SERIAL_BASE)?).ok()?;
    (offset < layout::SERIAL_REGISTERS).then_some(offset)
}

fn ioapic_offset(address: u64) -> Option<u64> {
    address.checked_sub(layout::IOAPIC_BASE).filter(|offset| *offset < ioapic::SIZE)
}

fn exit(request: Request) -> Exit {
    match request {
        Request::PowerOff => Exit::PowerOff,
        Request::KeyboardReset => Exit::Reset(ResetCause::Keyboard),
        Request::AcpiReset => Exit::Reset(ResetCause::Acpi),
        Request::Panicked => Exit::GuestPanic,
    }
}
