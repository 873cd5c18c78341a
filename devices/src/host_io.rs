//! System calls that read and write guest memory directly: the bytes of a request are copied once, by the
//! kernel, between the back end and the guest's buffers.
//!
//! What must hold: every address given to the kernel comes from a [`VolatileSlice`] of the guest's memory
//! that is borrowed for as long as the call lasts, and none is kept after it; but for calls that last longer
//! than their caller (`IoVecs::describe`), where who makes them answers for that. The guest may change the
//! bytes at any time, which is nobody's problem but its own: no reference to them exists.
//!
//! All of it is two calls, `preadv2` and `pwritev2`: with an offset they are for files, without one for what has
//! none. So a jailed thread needs these two alone, and [`Here`] offers them for bytes of our own.
//!
//! [`VolatileSlice`]: vm_memory::VolatileSlice
#![allow(unsafe_code, reason = "system calls on guest memory")]

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;

use crate::virtio::{Buffer, MAX_BUFFERS, Memory, slices};

/// The offset that stands for none: where the descriptor is.
const HERE: libc::off_t = -1;

/// The pieces of guest memory of one call, in the form that the kernel takes. Empty between calls, unless
/// described for one that is yet to come.
#[derive(Debug, Default)]
pub struct IoVecs(Vec<IoVec>);

/// `struct iovec`, with the address as a number: it is never used as a pointer on this side.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct IoVec {
    base: usize,
    len: usize,
}

const _: () = assert!(size_of::<IoVec>() == size_of::<libc::iovec>());
const _: () = assert!(std::mem::offset_of!(IoVec, len) == std::mem::offset_of!(libc::iovec, iov_len));

/// Where in its buffers a call begins, and how many bytes it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the buffers to skip.
    pub skip: usize,
    /// Bytes to move at most.
    pub len: usize,
}

impl Span {
    /// All from `skip` on.
    #[must_use]
    pub fn from(skip: usize) -> Self {
        Self { skip, len: usize::MAX }
    }
}

impl IoVecs {
    /// None yet; the memory for them grows to what calls need and is kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads from `fd`, where it is, into guest memory; see readv(2).
    ///
    /// # Errors
    /// What the host said. A part of guest memory that is gone is `EFAULT`.
    pub fn readv(
        &mut self,
        fd: &impl AsRawFd,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
    ) -> io::Result<usize> {
        self.fill(memory, buffers, span);
        self.read(fd, HERE)
    }

    /// Writes guest memory to `fd`, where it is; see writev(2).
    ///
    /// # Errors
    /// What the host said.
    pub fn writev(
        &mut self,
        fd: &impl AsRawFd,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
    ) -> io::Result<usize> {
        self.fill(memory, buffers, span);
        self.write(fd, HERE, 0)
    }

    /// Reads from `fd` at `offset` into guest memory; see preadv(2).
    ///
    /// # Errors
    /// What the host said.
    pub fn preadv(
        &mut self,
        fd: &impl AsRawFd,
        offset: u64,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
    ) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        self.fill(memory, buffers, span);
        self.read(fd, offset)
    }

    /// Writes guest memory to `fd` at `offset`, to stable storage where `durable`; see pwritev2(2).
    ///
    /// # Errors
    /// What the host said.
    pub fn pwritev(
        &mut self,
        fd: &impl AsRawFd,
        offset: u64,
        durable: bool,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
    ) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        self.fill(memory, buffers, span);
        self.write(fd, offset, if durable { libc::RWF_DSYNC } else { 0 })
    }

    /// Reads from `fd` into guest memory, and into `spill` what finds no room in `span` of it. Returns how
    /// many bytes went to each.
    ///
    /// # Errors
    /// What the host said.
    pub fn readv_spilling(
        &mut self,
        fd: &impl AsRawFd,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
        spill: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        self.fill(memory, buffers, span);
        self.0.truncate(MAX_BUFFERS.saturating_sub(1));
        let room = self.0.iter().fold(0_usize, |room, vec| room.saturating_add(vec.len));
        self.0.push(IoVec { base: spill.as_mut_ptr().expose_provenance(), len: spill.len() });
        let len = self.read(fd, HERE)?;
        Ok((len.min(room), len.saturating_sub(room)))
    }

    /// The pieces of `span`, and how many they are, for a call that the kernel makes later. They are valid as
    /// long as nothing else is done with `self`; what they point to, as long as `memory` lives.
    pub(crate) fn describe(
        &mut self,
        memory: &Memory,
        buffers: &[Buffer],
        span: Span,
    ) -> (*const libc::iovec, u32) {
        self.fill(memory, buffers, span);
        let (vecs, count) = self.described();
        (vecs, count.cast_unsigned())
    }

    /// Reads into what has been described, and forgets it.
    fn read(&mut self, fd: &impl AsRawFd, offset: libc::off_t) -> io::Result<usize> {
        let (vecs, count) = self.described();
        // SAFETY: `IoVec` is laid out as `iovec`. The kernel writes what the vectors describe. The addresses are those
        // of guest memory, which the caller's `memory` keeps mapped and which is only ever accessed as volatile; and
        // of `spill`, which is borrowed until the call has returned.
        let result = unsafe { libc::preadv2(fd.as_raw_fd(), vecs, count, offset, 0) };
        self.0.clear();
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Writes what has been described, and forgets it.
    fn write(&mut self, fd: &impl AsRawFd, offset: libc::off_t, flags: libc::c_int) -> io::Result<usize> {
        let (vecs, count) = self.described();
        // SAFETY: as for `read`; the kernel reads what the vectors describe, which is guest memory.
        let result = unsafe { libc::pwritev2(fd.as_raw_fd(), vecs, count, offset, flags) };
        self.0.clear();
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn described(&self) -> (*const libc::iovec, libc::c_int) {
        (self.0.as_ptr().cast(), libc::c_int::try_from(self.0.len()).unwrap_or(libc::c_int::MAX))
    }

    /// Describes `span` of `buffers`.
    fn fill(&mut self, memory: &Memory, buffers: &[Buffer], span: Span) {
        self.0.clear();
        self.0.extend(slices(memory, buffers, span.skip, span.len).take(MAX_BUFFERS).map(|slice| IoVec {
            base: slice.ptr_guard_mut().as_ptr().expose_provenance(),
            len: slice.len(),
        }));
    }
}

/// Reads and writes bytes of our own where a descriptor is.
#[derive(Debug)]
pub struct Here<'a, F>(pub &'a F);

impl<F: AsRawFd> Read for Here<'_, F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let vec = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the one vector describes `bytes`, which is borrowed for as long as the call lasts.
        let result = unsafe { libc::preadv2(self.0.as_raw_fd(), &raw const vec, 1, HERE, 0) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

impl<F: AsRawFd> Write for Here<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = libc::c_int::try_from(slices.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: an `IoSlice` is an iovec, by what the standard library promises; those here are only read, and
        // borrowed for as long as the call lasts.
        let result = unsafe { libc::pwritev2(self.0.as_raw_fd(), slices.as_ptr().cast(), count, HERE, 0) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes bytes of our own to `fd` at `offset`, by the call that [`IoVecs::pwritev`] makes.
///
/// # Errors
/// What the host said.
pub fn pwrite(fd: &impl AsRawFd, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    let vec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the one vector describes `bytes`, which is borrowed for as long as the call lasts and only read.
    let result = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const vec, 1, file_offset(offset)?, 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}
