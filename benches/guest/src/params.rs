//! The command line: what to do, and where the devices are.

use core::{ptr, slice, str};

use crate::fail;

/// Where our own monitor puts its device windows, and how many there can be. A monitor that says on the command line
/// where its devices are (`virtio_mmio.device=4K@0xc0001000:5`) is believed instead.
const WINDOWS: u64 = 0xd000_0000;
const WINDOW: u64 = 0x1000;
const COUNT: u32 = 24;
const FIRST_PIN: u32 = 5;

/// Where a device may be: its registers, and its pin of the IOAPIC.
#[derive(Clone, Copy)]
pub struct Place {
    pub base: u64,
    pub pin: u32,
}

pub struct Params {
    text: &'static str,
}

impl Params {
    /// The command line `boot_params` points to.
    pub fn of(boot_params: *const u8) -> Self {
        /// `hdr.cmd_line_ptr`.
        const POINTER: usize = 0x228;
        const LONGEST: usize = 4096;
        // SAFETY: the boot protocol says that `boot_params` is there and where it points; all of RAM is mapped.
        let bytes = unsafe {
            let start = ptr::read_unaligned(boot_params.add(POINTER).cast::<u32>()) as usize as *const u8;
            let length = (0..LONGEST).find(|at| *start.add(*at) == 0).unwrap_or(LONGEST);
            slice::from_raw_parts(start, length)
        };
        match str::from_utf8(bytes) {
            Ok(text) => Self { text },
            Err(_) => fail("the command line is not text"),
        }
    }

    /// The value of `key=value`.
    pub fn word(&self, key: &str) -> Option<&'static str> {
        self.words(key).next()
    }

    fn words(&self, key: &str) -> impl Iterator<Item = &'static str> {
        let words = self.text.split_ascii_whitespace();
        words.filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The value of `key=value` where it is a number.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        match self.word(key) {
            Some(word) => word.parse().unwrap_or_else(|_| fail("a parameter is not a number")),
            None => default,
        }
    }

    /// Calls `each` with every place where a device may be, until it returns something.
    pub fn find_place<T>(&self, mut each: impl FnMut(Place) -> Option<T>) -> Option<T> {
        const DEVICE: &str = "virtio_mmio.device";
        if self.word(DEVICE).is_some() {
            return self.words(DEVICE).filter_map(place).find_map(each);
        }
        (0..COUNT).find_map(|index| {
            each(Place { base: WINDOWS + u64::from(index) * WINDOW, pin: FIRST_PIN + index })
        })
    }
}

/// The place in `4K@0xADDRESS:IRQ`.
fn place(word: &str) -> Option<Place> {
    let (address, pin) = word.split_once("@0x")?.1.split_once(':')?;
    Some(Place { base: u64::from_str_radix(address, 16).ok()?, pin: pin.split(':').next()?.parse().ok()? })
}
