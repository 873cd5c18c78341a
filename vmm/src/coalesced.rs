//! Writes that KVM keeps for later: its ring of coalesced MMIO and port I/O.
//!
//! What a guest writes to some registers means nothing until something else happens: which register of the IOAPIC it will
//! look at next, or a byte for the serial port. KVM puts such a write into this ring without an exit. It is taken from there
//! before the next access that does exit is answered, and when there is none, by the console's thread within
//! [`PATIENCE`]. The ring is one for the whole VM.
//!
//! That thread is not to look into a ring where nothing happens. So the ring is shut then, which has writes exit again, and
//! the first that does opens it.
//!
//! A place is put to use by the guest's first access: what is put on KVM's I/O bus is waited for, by whoever does it or,
//! on later hosts, by the end of a VM that lives for some milliseconds only. A guest without an operating system has no
//! use for it.
//!
//! What must hold:
//! - Only one thread at a time takes entries (whoever has the ring has it by `&mut`), and none is taken after an access
//!   that came later has been answered.
//! - `last`, the entry to be filled next, is KVM's to write. It takes the ring for full where the one after that is
//!   `first`, which hosts before Linux 6.12 reckon wrongly where `first` is below `last`. So `first` stays at the end:
//!   the ring is filled once, and begins anew when it is full and all has been taken, while KVM writes nothing.
//! - KVM refuses a `last` beyond the ring. That is how the ring is shut, only ever in place of a `last` up to which all
//!   has been taken. Should KVM be filling an entry just then, it writes its own `last` over ours: the ring is as it would
//!   have been, and open, which is found a while later ([`Ring::rest`]).

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kvm_bindings::{
    KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio as Entry, kvm_coalesced_mmio_ring as Head,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};

use crate::kvm::KvmError;
use crate::x86_64::SINCE_5_10;

/// For how long a write is kept at most.
pub(crate) const PATIENCE: Duration = Duration::from_millis(10);

/// Bytes of the ring's page.
const PAGE: usize = 4096;
/// Entries there is room for.
const ENTRIES: usize = (PAGE - size_of::<Head>()) / size_of::<Entry>();
/// `last` of a full ring; `first` is the place behind it, always.
const END: u32 = 168;
/// `last` of a ring that is shut.
const SHUT: u32 = u32::MAX;

const _: () = assert!(END as usize + 2 == ENTRIES);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// KVM keeps writes.
    Open,
    /// It has been told not to.
    Shutting,
    /// It does not.
    Shut,
}

/// A VM's ring, mapped.
pub(crate) struct Ring {
    head: NonNull<Head>,
    vm: Arc<VmFd>,
    /// The registers, with their sizes, of which KVM is not keeping writes yet.
    waiting: Vec<(IoEventAddress, u32)>,
    /// The entry to be taken next.
    next: u32,
    state: State,
    /// There may be writes that somebody has to look for: others may stay until the access that they are for.
    is_watched: bool,
    /// Something has been taken since [`Ring::rest`] last asked.
    used: bool,
}

// SAFETY: the mapping belongs to this value alone and is reached through atomic and volatile accesses from any thread;
// what else there is may be used from any.
unsafe impl Send for Ring {}

impl Ring {
    /// As many writes as are kept at most.
    pub(crate) const PLACES: u32 = END;

    /// Whether this KVM has such a ring, and checks `last` before it writes there, as Linux does since 5.4
    /// (CVE-2019-14821): one that does not is never to see a `last` beyond the ring.
    pub(crate) fn is_offered(kvm: &Kvm) -> bool {
        kvm.check_extension(Cap::CoalescedMmio) && kvm.check_extension(SINCE_5_10)
    }

    /// Maps the ring of the VM that `vcpu` is one of, for writes to registers of these sizes.
    pub(crate) fn new(
        vm: &Arc<VmFd>,
        vcpu: &VcpuFd,
        registers: &[(IoEventAddress, u32)],
    ) -> Result<Self, KvmError> {
        let offset = libc::off_t::from(KVM_COALESCED_MMIO_PAGE_OFFSET).saturating_mul(4096);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a page that KVM has for this purpose, anywhere.
        let page = unsafe {
            libc::mmap(ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, vcpu.as_raw_fd(), offset)
        };
        let no_page = || KvmError::Operation {
            operation: "mmap of the coalesced MMIO ring",
            source: io::Error::last_os_error(),
        };
        let page = NonNull::new(page).filter(|page| page.as_ptr() != libc::MAP_FAILED);
        let head = page.ok_or_else(no_page)?.cast();
        let waiting = registers.to_vec();
        let (vm, state) = (Arc::clone(vm), State::Open);
        let ring = Self { head, vm, waiting, next: 0, state, is_watched: false, used: false };
        ring.places().0.store(END.wrapping_add(1), Ordering::Release);
        Ok(ring)
    }

    /// Has KVM keep writes to the register at `address` from now on. Where it cannot, they go on to exit.
    pub(crate) fn begin(&mut self, address: u64) {
        let is_it = |(place, _): &(IoEventAddress, u32)| match place {
            IoEventAddress::Pio(at) | IoEventAddress::Mmio(at) => *at == address,
        };
        let Some(index) = self.waiting.iter().position(is_it) else { return };
        let (place, size) = self.waiting.swap_remove(index);
        if let Err(error) = self.vm.register_coalesced_mmio(place, size) {
            log::debug!("every write to {address:#x} exits: KVM_REGISTER_COALESCED_MMIO: {error}");
        }
    }

    /// Has KVM keep writes that somebody has to look for, and says whether it did not before.
    pub(crate) fn open(&mut self) -> bool {
        let was_open = std::mem::replace(&mut self.state, State::Open) == State::Open;
        if !was_open {
            // Where it is not shut, KVM has found it open still.
            self.exchange(SHUT, self.next);
        }
        !(std::mem::replace(&mut self.is_watched, true) && was_open)
    }

    /// Has writes exit, unless there are some to be taken, or nobody has to look for any.
    pub(crate) fn shut(&mut self) {
        if self.is_watched && self.state == State::Open && self.exchange(self.next, SHUT) {
            self.state = State::Shutting;
        }
    }

    /// [`PATIENCE`] has passed since this was last called: where nothing was to be taken, nobody need look for more.
    pub(crate) fn rest(&mut self) {
        match self.state {
            State::Open if !self.used => self.shut(),
            State::Shutting => self.state = State::Shut,
            _ => {}
        }
        self.used = false;
    }

    /// Whether somebody has to look whether there is something to take.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched && self.state != State::Shut
    }

    /// Takes the oldest write there is: its address, and its bytes.
    pub(crate) fn take(&mut self) -> Option<Write> {
        // KVM writes an entry, then its place.
        let last = self.places().1.load(Ordering::Acquire);
        if last > END || self.next >= last {
            if self.next == END && self.exchange(END, 0) {
                self.next = 0;
            }
            return None;
        }
        (self.state, self.used) = (State::Open, true);
        let at = usize::try_from(self.next).ok()?;
        // SAFETY: the entries follow the head in the page, and `next` is one of them. KVM does not write it again
        // before `last` has begun anew; any bytes are a valid entry.
        let entry = unsafe { self.head.as_ptr().add(1).cast::<Entry>().add(at).read_volatile() };
        self.next = self.next.wrapping_add(1);
        Some(Write { address: entry.phys_addr, bytes: entry.data, len: entry.len })
    }

    /// Replaces `last`, where it is what it should be.
    fn exchange(&self, expected: u32, new: u32) -> bool {
        self.places().1.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// `first`, which is ours, and `last`, which is KVM's.
    fn places(&self) -> (&AtomicU32, &AtomicU32) {
        // SAFETY: both lie in the page, aligned, as long as this value does; KVM and we access them as whole words.
        unsafe {
            let head = self.head.as_ptr();
            (AtomicU32::from_ptr(&raw mut (*head).first), AtomicU32::from_ptr(&raw mut (*head).last))
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, is whole, and nothing refers to it any more.
        unsafe { libc::munmap(self.head.as_ptr().cast(), PAGE) };
    }
}

/// A write of the guest's.
pub(crate) struct Write {
    pub(crate) address: u64,
    bytes: [u8; 8],
    len: u32,
}

impl Write {
    pub(crate) fn data(&self) -> &[u8] {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.get(..len).unwrap_or_default()
    }
}
