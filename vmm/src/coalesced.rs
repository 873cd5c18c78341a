//! Writes that KVM keeps for later: its ring of coalesced MMIO.
//!
//! A guest reaches a register of the IOAPIC in two steps: it writes which one, and then reads or writes that. The first
//! step means nothing by itself, so KVM puts it into this ring without an exit; it is taken from there before the second
//! step, which does exit, is answered. The ring is one for the whole VM. A ring that is full makes writes exit again.
//!
//! It is put to use by the guest's first access: what is put on KVM's I/O bus is waited for, by whoever does it or, on
//! later hosts, by the end of a VM that lives for some milliseconds only. A guest without an operating system has no use
//! for it.
//!
//! What must hold: only one thread at a time takes entries (whoever has the ring has it by `&mut`), and none is taken
//! after an access that came later has been answered.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{
    KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio as Entry, kvm_coalesced_mmio_ring as Head,
};
use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};

use crate::kvm::KvmError;

/// Bytes of the ring's page.
const PAGE: usize = 4096;
/// Entries there is room for.
const ENTRIES: usize = (PAGE - size_of::<Head>()) / size_of::<Entry>();

const _: () = assert!(ENTRIES == Ring::PLACES as usize);

/// A VM's ring, mapped.
pub(crate) struct Ring {
    head: NonNull<Head>,
    /// The VM, and the register of which its KVM is to keep writes; `None` once it does.
    waits: Option<(Arc<VmFd>, IoEventAddress, u32)>,
}

// SAFETY: the mapping belongs to this value alone and is reached through atomic and volatile accesses from any thread;
// what else there is may be used from any.
unsafe impl Send for Ring {}

impl Ring {
    /// Entries there is room for, as the ring's places are counted.
    pub(crate) const PLACES: u32 = 170;

    /// Maps the ring of the VM that `vcpu` is one of, for writes of `size` bytes to `address`.
    pub(crate) fn new(vm: &Arc<VmFd>, vcpu: &VcpuFd, address: u64, size: u32) -> Result<Self, KvmError> {
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
        Ok(Self { head, waits: Some((Arc::clone(vm), IoEventAddress::Mmio(address), size)) })
    }

    /// Has KVM put writes into the ring from now on. Where it cannot, they go on to exit.
    pub(crate) fn begin(&mut self) {
        if let Some((vm, address, size)) = self.waits.take()
            && let Err(error) = vm.register_coalesced_mmio(address, size)
        {
            log::debug!("every access to the IOAPIC exits: KVM_REGISTER_COALESCED_MMIO: {error}");
        }
    }

    /// Takes the oldest write there is: its address, and its bytes.
    pub(crate) fn take(&mut self) -> Option<Write> {
        let (first, last) = self.places();
        let place = first.load(Ordering::Relaxed);
        // KVM writes an entry, then its place.
        if place == last.load(Ordering::Acquire) || place >= Self::PLACES {
            return None;
        }
        let at = usize::try_from(place).ok()?;
        // SAFETY: the entries follow the head in the page, and `place` is one of them. KVM does not write it again
        // before `first` has moved past it; any bytes are a valid entry.
        let entry = unsafe { self.head.as_ptr().add(1).cast::<Entry>().add(at).read_volatile() };
        first.store(place.wrapping_add(1).checked_rem(Self::PLACES).unwrap_or(0), Ordering::Release);
        Some(Write { address: entry.phys_addr, bytes: entry.data, len: entry.len })
    }

    /// Where the oldest entry is, which is ours to write, and where the next one will be, which is KVM's.
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
