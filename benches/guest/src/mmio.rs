//! A virtio-mmio version 2 device, from the driver's side.

use core::ptr;

use crate::params::{Params, Place};
use crate::queue::Queue;
use crate::{Interrupts, fail};

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;

/// Register offsets.
mod register {
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub const QUEUE_SELECT: u64 = 0x30;
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESCRIPTORS: u64 = 0x80;
    pub const QUEUE_AVAILABLE: u64 = 0x90;
    pub const QUEUE_USED: u64 = 0xa0;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register.
mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// Feature bits of every device.
pub const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

pub struct Device {
    base: u64,
    pub features: u64,
    interrupts: Interrupts,
}

impl Device {
    /// Finds the first device of a kind and negotiates: what it offers of `features`, and what is always wanted.
    pub fn open(params: &Params, kind: u32, features: u64) -> Self {
        let there = |place: Place| {
            let found = |offset, value| read(place.base + offset) == value;
            (found(register::MAGIC, MAGIC)
                && found(register::VERSION, VERSION)
                && found(register::DEVICE_ID, kind))
            .then_some(place)
        };
        let Some(Place { base, pin }) = params.find_place(there) else { fail("no such device") };
        let interrupts = match params.number("ack", 0) {
            0 => Interrupts::Off,
            _ => {
                route_interrupt(pin);
                Interrupts::Acknowledged
            }
        };
        let mut device = Self { base, features: 0, interrupts };
        device.set(register::STATUS, 0);
        device.set(register::STATUS, status::ACKNOWLEDGE);
        device.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let mut offered = 0;
        for half in 0..2 {
            device.set(register::DEVICE_FEATURES_SELECT, half);
            offered |= u64::from(device.get(register::DEVICE_FEATURES)) << (32 * half);
        }
        device.features = offered & (features | EVENT_IDX | VERSION_1);
        for half in 0..2 {
            device.set(register::DRIVER_FEATURES_SELECT, half);
            device.set(register::DRIVER_FEATURES, (device.features >> (32 * half)) as u32);
        }
        let negotiated = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        device.set(register::STATUS, negotiated);
        if device.get(register::STATUS) != negotiated {
            fail("the device refuses the features");
        }
        device
    }

    /// Sets a queue up, as large as it may be but not larger than asked for.
    pub fn queue(&self, index: u32, at_most: u16) -> Queue {
        self.set(register::QUEUE_SELECT, index);
        let size = self.get(register::QUEUE_SIZE_MAX).min(u32::from(at_most));
        if size == 0 {
            fail("the device has no such queue");
        }
        let notify = (self.base + register::QUEUE_NOTIFY) as *mut u32;
        let event_idx = self.features & EVENT_IDX != 0;
        let queue = Queue::new(index, size as u16, notify, event_idx, self.interrupts);
        self.set(register::QUEUE_SIZE, size);
        let (descriptors, available, used) = queue.rings();
        for (offset, address) in [
            (register::QUEUE_DESCRIPTORS, descriptors),
            (register::QUEUE_AVAILABLE, available),
            (register::QUEUE_USED, used),
        ] {
            self.set(offset, address as u32);
            self.set(offset + 4, (address >> 32) as u32);
        }
        self.set(register::QUEUE_READY, 1);
        queue
    }

    /// All queues are set up: the device may start.
    pub fn start(&self) {
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.set(register::STATUS, all);
        if self.get(register::STATUS) & status::NEEDS_RESET != 0 {
            fail("the device needs a reset");
        }
    }

    /// What an interrupt handler does, where handlers are part of the measurement.
    pub fn acknowledge(&self) {
        if self.interrupts == Interrupts::Acknowledged {
            let why = self.get(register::INTERRUPT_STATUS);
            if why != 0 {
                self.set(register::INTERRUPT_ACK, why);
            }
        }
    }

    /// Eight bytes of the configuration space.
    pub fn config(&self, offset: u64) -> u64 {
        let half = |offset| u64::from(self.get(register::CONFIG + offset));
        half(offset) | half(offset + 4) << 32
    }

    fn get(&self, offset: u64) -> u32 {
        read(self.base + offset)
    }

    fn set(&self, offset: u64, value: u32) {
        write(self.base + offset, value);
    }
}

/// Has the IOAPIC pass a pin on to the only CPU, as a kernel would: KVM takes another way with an interrupt that leads
/// somewhere. The local APIC stays off, as it is at reset, and drops it.
fn route_interrupt(pin: u32) {
    const SELECT: u64 = 0xfec0_0000;
    const WINDOW: u64 = 0xfec0_0010;
    const FIRST_ENTRY: u32 = 0x10;
    /// Edge-triggered, unmasked, to APIC 0.
    const VECTOR: u32 = 0x40;
    for (half, value) in [(1, 0), (0, VECTOR)] {
        write(SELECT, FIRST_ENTRY + 2 * pin + half);
        write(WINDOW, value);
    }
}

fn write(address: u64, value: u32) {
    // SAFETY: all windows of devices are mapped, and hold no memory of this program.
    unsafe { ptr::write_volatile(address as *mut u32, value) };
}

fn read(address: u64) -> u32 {
    // SAFETY: all device windows are mapped; where there is no device, reads give ones.
    unsafe { ptr::read_volatile(address as *const u32) }
}
