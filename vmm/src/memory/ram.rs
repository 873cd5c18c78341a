//! Guest RAM: the mappings behind it, and files and bytes put into it before the guest runs.
//!
//! What must hold:
//! - Host code never touches a page that is mapped from a file that can shrink: such a page is gone when
//!   somebody truncates the file, and touching it would be a SIGBUS for the whole process. The guest's own touch
//!   of it is an error of `KVM_RUN`, which ends that guest's run and nothing else. So where the guest has
//!   devices, which touch whatever memory the guest names, only sealed files are mapped, and others are copied.
//! - Every mapping inside a region is placed with `MAP_FIXED` over pages the region owns, and goes with it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

use firecrest_devices::host_io::{IoVecs, Span};
use firecrest_devices::virtio::Buffer;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};
use vmm_sys_util::syscall::SyscallReturnCode;

use super::{HugePages, Memory, PAGE_SIZE};

/// Parts of a file shorter than this are copied: below it a mapping of its own costs more than it saves.
const MAP_THRESHOLD: u64 = 64 << 10;

/// A huge page, and an entry of the page tables above the last.
const HUGE_PAGE: usize = 2 << 20;
const FILLER: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Why guest memory could not be had or filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The size is out of range.
    #[error("guest memory of {bytes} bytes is not between 16 MiB and 64 GiB")]
    Size {
        /// The size asked for.
        bytes: u64,
    },
    /// The size is not a whole number of pages.
    #[error("guest memory of {bytes} bytes is not a multiple of the {page}-byte page")]
    Alignment {
        /// The size asked for.
        bytes: u64,
        /// The page size that backs it.
        page: u64,
    },
    /// The host has no such memory.
    #[error("cannot map {bytes} bytes of guest memory at {start:#x} ({huge_pages:?})")]
    Map {
        /// Guest physical address of the region.
        start: u64,
        /// Its size.
        bytes: u64,
        /// What was to back it.
        huge_pages: HugePages,
        /// What the host said.
        source: MmapRegionError,
    },
    /// The host did not take the advice on huge pages.
    #[error("the host offers no transparent huge pages")]
    Advice(#[source] io::Error),
    /// Something planned to be in memory could not be put there.
    #[error("cannot load {what}")]
    Load {
        /// What it was and where it was to lie.
        what: Placed,
        /// What the host said.
        source: io::Error,
    },
}

/// Something placed in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// Guest physical address of its first byte.
    pub guest_addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl std::fmt::Display for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at guest address {:#x}", self.len, self.guest_addr)
    }
}

/// A guest's RAM.
#[derive(Debug)]
pub(crate) struct Ram {
    memory: Arc<GuestMemoryMmap>,
    /// The host backs the memory with huge pages: a file mapped into it would leave small ones, each a fault of the
    /// guest's, where a copy costs about as much as a fifth of those faults.
    is_huge: OnceLock<bool>,
    huge_pages: HugePages,
    /// Devices touch guest memory.
    has_devices: bool,
}

impl Ram {
    /// Maps the ranges that [`Memory::layout`] gave for `spec`, of a guest with devices or without.
    pub(crate) fn map(spec: Memory, layout: &[Range<u64>], has_devices: bool) -> Result<Self, MemoryError> {
        let huge_pages = spec.huge_pages;
        let regions = layout.iter().map(|range| map_region(range, huge_pages)).collect::<Result<_, _>>()?;
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|error| MemoryError::Map {
            start: 0,
            bytes: spec.bytes,
            huge_pages,
            source: MmapRegionError::Mmap(io::Error::other(error)),
        })?;
        Ok(Self { memory: Arc::new(memory), is_huge: OnceLock::new(), huge_pages, has_devices })
    }

    /// The memory itself, for devices.
    pub(crate) fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// Guest physical address, size and host address of each region, ascending.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.memory
            .iter()
            .map(|region| (region.start_addr().0, region.len(), region.as_ptr().expose_provenance() as u64))
    }

    /// Puts `bytes` at `guest_addr`.
    pub(crate) fn write(&self, guest_addr: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.memory.write_slice(bytes, GuestAddress(guest_addr)).map_err(|error| MemoryError::Load {
            what: Placed { guest_addr, len: bytes.len() as u64 },
            source: io::Error::other(error),
        })
    }

    /// Puts `len` bytes of `file` from `offset` on at `guest_addr`: its whole pages are mapped privately
    /// where guest address and offset allow it, the rest is copied.
    pub(crate) fn load(
        &self,
        file: &File,
        offset: u64,
        guest_addr: u64,
        len: u64,
    ) -> Result<(), MemoryError> {
        let place = || -> io::Result<()> {
            let mappable = self.mappable(offset, guest_addr, len);
            match mappable.filter(|_| !self.has_devices || cannot_shrink(file)) {
                None => self.copy(file, offset, guest_addr, len),
                Some(Range { start, end }) => {
                    // `start` and `end` lie within the segment, so neither difference wraps.
                    let head = start.wrapping_sub(guest_addr);
                    let tail = guest_addr.wrapping_add(len).wrapping_sub(end);
                    self.copy(file, offset, guest_addr, head)?;
                    self.map_file(file, offset.wrapping_add(head), start, end.wrapping_sub(start))?;
                    self.copy(file, offset.wrapping_add(end.wrapping_sub(guest_addr)), end, tail)
                }
            }
        };
        place().map_err(|source| MemoryError::Load { what: Placed { guest_addr, len }, source })
    }

    /// The guest physical range whose pages can be the file's own.
    fn mappable(&self, offset: u64, guest_addr: u64, len: u64) -> Option<Range<u64>> {
        let same_place_in_page = offset % PAGE_SIZE == guest_addr % PAGE_SIZE;
        if !same_place_in_page {
            return None;
        }
        let start = guest_addr.checked_next_multiple_of(PAGE_SIZE)?;
        let end = guest_addr.checked_add(len)? & !PAGE_SIZE.wrapping_sub(1);
        (end.checked_sub(start)? >= MAP_THRESHOLD && !self.is_huge()).then_some(start..end)
    }

    fn is_huge(&self) -> bool {
        let asked = self.huge_pages != HugePages::HostPolicy;
        *self.is_huge.get_or_init(|| asked || transparent_always())
    }

    fn map_file(&self, file: &File, offset: u64, guest_addr: u64, len: u64) -> io::Result<()> {
        let invalid = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
        let len = usize::try_from(len).map_err(invalid)?;
        let offset = libc::off_t::try_from(offset).map_err(invalid)?;
        let slice = self.memory.get_slice(GuestAddress(guest_addr), len).map_err(io::Error::other)?;
        let address = slice.ptr_guard_mut().as_ptr();
        // SAFETY: `slice` says that these `len` bytes lie in one region of ours; no reference into guest
        // memory is ever made, so replacing the pages invalidates nothing. The region's own unmapping
        // covers them. Address, length and offset are page-aligned (see `mappable`).
        let mapped = unsafe {
            libc::mmap(
                address.cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the kernel copy; it gives an error where it cannot.
    fn copy(&self, file: &File, mut offset: u64, mut guest_addr: u64, len: u64) -> io::Result<()> {
        let (mut left, mut vecs) = (len, IoVecs::new());
        while left != 0 {
            // What is longer takes several calls in any case.
            let len = u32::try_from(left).unwrap_or(u32::MAX);
            let buffer = Buffer { addr: GuestAddress(guest_addr), len };
            match vecs.preadv(file, offset, &self.memory, &[buffer], Span::from(0)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    // `count` is at most `left`, and the plan has checked that address and offset plus length fit.
                    left = left.wrapping_sub(count as u64);
                    offset = offset.wrapping_add(count as u64);
                    guest_addr = guest_addr.wrapping_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads up to `len` bytes at a guest physical address, fewer where a page is not RAM or is gone.
    ///
    /// For reports: safe while the guest runs and where a mapped file has been truncated, as the kernel does
    /// the copy and gives an error where a load would be a SIGBUS.
    pub(crate) fn peek(&self, guest_addr: u64, len: usize) -> Vec<u8> {
        let Ok(slice) = self.memory.get_slice(GuestAddress(guest_addr), len) else { return Vec::new() };
        let mut bytes = vec![0u8; len];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        let remote = libc::iovec { iov_base: slice.ptr_guard().as_ptr().cast_mut().cast(), iov_len: len };
        // SAFETY: both vectors describe `len` bytes, one in a buffer of ours that nothing else refers to,
        // one in a region that `slice` borrows; the second is only read.
        let count =
            unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        bytes.truncate(usize::try_from(count).unwrap_or(0));
        bytes
    }
}

/// Whether the host gives transparent huge pages to whoever has not asked for them.
fn transparent_always() -> bool {
    std::fs::read("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|policy| policy.starts_with(b"[always]"))
}

/// Whether the file is memory sealed against becoming shorter.
fn cannot_shrink(file: &File) -> bool {
    // SAFETY: takes an open descriptor and no pointer; a file that cannot be sealed gives an error.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

/// Maps `size` bytes, where it can be had at a multiple of 2 MiB.
///
/// KVM maps a huge page of the host's as one only if guest and host address lie alike within it. An address cannot be
/// asked for here, but the kernel puts a mapping right below the last one: something put in first, and removed
/// after, moves it to where it should be. Should another thread map something in between, the guest has memory as
/// good, with small pages.
fn map_aligned(size: usize, flags: libc::c_int) -> Result<MmapRegion, MmapRegionError> {
    let map = || MmapRegion::build(None, size, libc::PROT_READ | libc::PROT_WRITE, flags);
    let region = map()?;
    let excess = region.as_ptr().addr().checked_rem(HUGE_PAGE).unwrap_or(0);
    let filler = size.checked_next_multiple_of(HUGE_PAGE).and_then(|whole| whole.checked_add(excess));
    let (true, Some(filler)) = (excess != 0, filler) else { return Ok(region) };
    drop(region);
    let filler = MmapRegion::<()>::build(None, filler, libc::PROT_NONE, FILLER);
    let region = map();
    drop(filler);
    region
}

fn map_region(range: &Range<u64>, huge_pages: HugePages) -> Result<GuestRegionMmap, MemoryError> {
    // `layout` made the range, so that it is neither empty nor backwards.
    let bytes = range.end.wrapping_sub(range.start);
    let error = |source| MemoryError::Map { start: range.start, bytes, huge_pages, source };
    let size = usize::try_from(bytes).map_err(|_| error(MmapRegionError::InvalidOffsetLength))?;
    // Pages of the hugetlb pool are reserved now: without a reservation a touch of one that the pool no
    // longer has would be a SIGBUS.
    let backing = match huge_pages {
        HugePages::HostPolicy | HugePages::Transparent => libc::MAP_NORESERVE,
        HugePages::Hugetlb2M => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | backing;
    let region = map_aligned(size, flags).map_err(error)?;
    if huge_pages == HugePages::Transparent {
        // SAFETY: the advice covers exactly the region just mapped and changes none of its bytes.
        let result = unsafe { libc::madvise(region.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        SyscallReturnCode(result).into_empty_result().map_err(MemoryError::Advice)?;
    }
    GuestRegionMmap::new(region, GuestAddress(range.start))
        .ok_or_else(|| error(MmapRegionError::InvalidOffsetLength))
}
