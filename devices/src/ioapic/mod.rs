//! The I/O APIC: up to 25 pins, each led to a message that a local APIC understands.
//!
//! Only the redirection table lives here. The pins themselves are elsewhere: whoever implements [`Router`]
//! keeps, for each pin the guest has unmasked, the message that an edge on it is to send. So an interrupt
//! never passes through this device, and the guest's accesses to it are the few of its driver's set-up.
//!
//! Every pin is edge-triggered, and the firmware tables say so. A guest that asks for level gets edges: then
//! no local APIC waits for an end-of-interrupt that nobody would send.
//!
//! Sources: Intel 82093AA datasheet, section 3 (registers); Intel SDM volume 3, section 11.11 (message
//! address and data).
//!
//! | threat | answer |
//! |---|---|
//! | registers beyond the table, odd sizes, odd offsets | read as 0, writes ignored |
//! | masking and unmasking in a loop | one call of the router for each change, of at most one route a pin |
//! | vectors 0-15, reserved delivery modes | passed on: the local APIC drops what is illegal |

use std::io;

/// The most pins. A guest looks at every pin there is, an exit for each look: a machine
/// gets as many as it has devices for.
pub const PINS: u8 = 25;

/// Bytes of guest physical address space that the registers take.
pub const SIZE: u64 = 0x1000;

/// Where an edge on a pin leads: the memory write that delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message address (low 32 bits; the high ones are 0).
    pub address: u32,
    /// Message data: vector and delivery mode.
    pub data: u32,
}

/// Keeps where each pin leads.
pub trait Router {
    /// Replaces all routes by these (pin and message, ascending by pin). A pin that is not listed leads
    /// nowhere.
    ///
    /// # Errors
    /// What the host said; the routes are then as they were.
    fn set_routes(&mut self, routes: &[(u8, Message)]) -> io::Result<()>;
}

const REGISTER_SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const TABLE: u8 = 0x10;

/// 82093AA. The highest entry's number is in bits 16-23 of the register.
const VERSION_VALUE: u32 = 0x11;

const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR: the device's to set. Here both are always clear.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;

/// Offset and size of the register that says which one the window shows. Writing it does nothing else, so such a write
/// may come late, if only it comes before the next access of the window.
pub const SELECT: (u64, u32) = (REGISTER_SELECT, 4);

/// The device.
pub struct IoApic<R: Router> {
    select: u8,
    id: u32,
    /// One entry for each pin.
    table: Vec<u64>,
    router: R,
}

impl<R: Router> IoApic<R> {
    /// An I/O APIC of this many pins (at least 1, at most [`PINS`]) in its reset state: every pin masked.
    pub fn new(router: R, pins: u8) -> Self {
        Self { select: 0, id: 0, table: vec![MASKED; usize::from(pins.clamp(1, PINS))], router }
    }

    /// The guest reads `data.len()` bytes at `offset` into the register page.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            REGISTER_SELECT => u32::from(self.select),
            WINDOW => self.register(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// The guest writes `data` at `offset` into the register page.
    ///
    /// # Errors
    /// The router's: the guest's table is changed, the route is not.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (REGISTER_SELECT | WINDOW, Some(&low)) = (offset, data.first()) else { return Ok(()) };
        if offset == REGISTER_SELECT {
            self.select = low;
            return Ok(());
        }
        // The window is 32 bits wide, and is only defined for accesses of that size.
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return Ok(()) };
        self.set_register(u32::from_le_bytes(bytes))
    }

    fn register(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE | u32::from(self.pins().saturating_sub(1)) << 16,
            select => self.entry(select).map_or(0, |(pin, high)| half(self.pin(pin), high)),
        }
    }

    fn set_register(&mut self, value: u32) -> io::Result<()> {
        if self.select == ID {
            self.id = value & 0x0f00_0000;
            return Ok(());
        }
        let Some((pin, high)) = self.entry(self.select) else { return Ok(()) };
        let Some(entry) = self.table.get_mut(usize::from(pin)) else { return Ok(()) };
        let before = message(*entry);
        *entry = if high {
            *entry & 0xffff_ffff | u64::from(value) << 32
        } else {
            *entry & !0xffff_ffff | u64::from(value) & !READ_ONLY
        };
        if message(*entry) == before { Ok(()) } else { self.route() }
    }

    /// The pin and half (true: high) that a register number of the table stands for.
    fn entry(&self, select: u8) -> Option<(u8, bool)> {
        let index = select.checked_sub(TABLE)?;
        let pin = index / 2;
        (pin < self.pins()).then_some((pin, index % 2 == 1))
    }

    fn pins(&self) -> u8 {
        u8::try_from(self.table.len()).unwrap_or(PINS)
    }

    fn pin(&self, pin: u8) -> u64 {
        self.table.get(usize::from(pin)).copied().unwrap_or(MASKED)
    }

    fn route(&mut self) -> io::Result<()> {
        let mut routes = Vec::with_capacity(self.table.len());
        for (pin, entry) in (0..PINS).zip(&self.table) {
            routes.extend(message(*entry).map(|message| (pin, message)));
        }
        self.router.set_routes(&routes)
    }
}

fn half(entry: u64, high: bool) -> u32 {
    let [a, b, c, d, e, f, g, h] = entry.to_le_bytes();
    u32::from_le_bytes(if high { [e, f, g, h] } else { [a, b, c, d] })
}

/// The message of a table entry; none where it is masked.
fn message(entry: u64) -> Option<Message> {
    if entry & MASKED != 0 {
        return None;
    }
    let (low, high) = (half(entry, false), half(entry, true));
    let destination = high >> 24;
    let logical = low >> 11 & 1;
    Some(Message { address: 0xfee0_0000 | destination << 12 | logical << 2, data: low & 0x7ff })
}

#[cfg(test)]
mod tests;
