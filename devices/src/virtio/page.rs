//! The registers of virtio-mmio devices, and some of the serial port's, as memory.
//!
//! What a guest reads of a device is this page and nothing else: whoever changes a register changes the
//! page. So a read needs no code of ours at all where the page itself is mapped into the guest, read-only;
//! where it is not, [`RegisterPage::read`] answers from the same bytes.
//!
//! The page is written by several threads: the transport (under its owner's lock) and the device's workers.
//! Each register has one writer, but for the status, the interrupt status and the configuration generation,
//! which are only changed by atomic read-modify-write. The guest cannot write it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{MmapRegion, VolatileMemory};

use super::mmio::{CONFIG, CONFIG_GENERATION};

/// Bytes of a device's registers: one page, so that pages can be mapped one by one.
pub const REGISTERS_SIZE: u64 = 0x1000;

const PAGE: usize = 0x1000;
const WORD: usize = 4;

/// The register pages of a machine, in one mapping.
#[derive(Debug)]
pub struct RegisterPages {
    region: Arc<MmapRegion>,
}

impl RegisterPages {
    /// So many pages, all zero.
    ///
    /// # Errors
    /// The host has no memory for them.
    pub fn new(count: usize) -> io::Result<Self> {
        let size = count.max(1).checked_mul(PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { region: Arc::new(MmapRegion::new(size).map_err(io::Error::other)?) })
    }

    /// One of the pages; `None` where there are not so many.
    #[must_use]
    pub fn page(&self, index: usize) -> Option<RegisterPage> {
        let offset = index.checked_mul(PAGE)?;
        let end = offset.checked_add(PAGE)?;
        (end <= self.region.size()).then(|| RegisterPage { region: Arc::clone(&self.region), offset })
    }

    /// The memory itself, for whoever maps it into the guest.
    #[must_use]
    pub fn region(&self) -> &Arc<MmapRegion> {
        &self.region
    }
}

/// The register page of one device. Clones are the same page.
#[derive(Clone, Debug)]
pub struct RegisterPage {
    region: Arc<MmapRegion>,
    offset: usize,
}

impl RegisterPage {
    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let within = usize::try_from(offset).ok().filter(|offset| *offset < PAGE)?;
        self.region.get_atomic_ref(self.offset.checked_add(within)?).ok()
    }

    /// The register at `offset`, which is a multiple of 4; 0 outside of the page.
    pub(super) fn load(&self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |word| u32::from_le(word.load(Ordering::SeqCst)))
    }

    pub(crate) fn store(&self, offset: u64, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value.to_le(), Ordering::SeqCst);
        }
    }

    /// Sets bits, and returns what the register held before.
    pub(super) fn set(&self, offset: u64, bits: u32) -> u32 {
        self.word(offset).map_or(0, |word| u32::from_le(word.fetch_or(bits.to_le(), Ordering::SeqCst)))
    }

    pub(super) fn clear(&self, offset: u64, bits: u32) {
        self.update(offset, |old| old & !bits);
    }

    /// Changes a register at once.
    fn update(&self, offset: u64, change: impl Fn(u32) -> u32) {
        if let Some(word) = self.word(offset) {
            let change = |old| Some(change(u32::from_le(old)).to_le());
            // The closure always gives a value, so there is no failure to look at.
            let _: Result<u32, u32> = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        }
    }

    /// Replaces bytes of the device's configuration and moves the generation on.
    ///
    /// A driver that reads while this runs may see part of the change between two equal generations; it is
    /// told of every change by an interrupt that follows, and reads again.
    pub(super) fn write_config(&self, offset: usize, bytes: &[u8]) {
        self.next_generation();
        for (at, byte) in (offset..).zip(bytes) {
            let shift = u32::try_from(at % WORD).unwrap_or(0).wrapping_mul(8);
            let word_at = (at as u64 & !(WORD as u64).wrapping_sub(1)).saturating_add(CONFIG);
            let (mask, value) = (0xff_u32 << shift, u32::from(*byte) << shift);
            self.update(word_at, |old| old & !mask | value);
        }
        self.next_generation();
    }

    fn next_generation(&self) {
        self.update(CONFIG_GENERATION, |old| old.wrapping_add(1));
    }

    /// What a guest reads: `data.len()` bytes at `offset` into the page, 0 beyond it. A read of one aligned
    /// word is one access.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let mut held = (u64::MAX, [0; WORD]);
        for (at, byte) in (offset..).zip(data) {
            let (word_at, within) = (at & !3, usize::try_from(at & 3).unwrap_or(0));
            if held.0 != word_at {
                held = (word_at, self.load(word_at).to_le_bytes());
            }
            *byte = held.1.get(within).copied().unwrap_or(0);
        }
    }
}
