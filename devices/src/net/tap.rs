//! One queue of a TAP interface, and its ioctls.
//!
//! What must hold: every ioctl is given the type that its number names, borrowed for the call, or a plain
//! number; a descriptor whose ioctls mean something else is refused before the first of them
//! ([`Tap::attached`]), but for `TUNGETIFF`, which no other driver knows.
#![allow(unsafe_code, reason = "ioctls")]

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::HEADER_LEN;
use crate::host_io::Here;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

/// Bytes of an interface's name, with the zero that ends it.
pub(super) const NAME_LEN: usize = libc::IFNAMSIZ;

/// How an interface is attached: flags of `TUNSETIFF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub(super) u16);

impl Mode {
    pub(super) const TAP: Self = Self(flag(libc::IFF_TAP));
    #[cfg(test)]
    pub(super) const TUN: Self = Self(flag(libc::IFF_TUN));
    pub(super) const NO_PACKET_INFO: Self = Self(flag(libc::IFF_NO_PI));
    pub(super) const VNET_HEADER: Self = Self(flag(libc::IFF_VNET_HDR));
    pub(super) const MULTI_QUEUE: Self = Self(flag(libc::IFF_MULTI_QUEUE));
    /// Only told, never asked for.
    pub(super) const DISABLED: Self = Self(flag(libc::IFF_DETACH_QUEUE));

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to fit, at compile time")]
const fn flag(flag: c_int) -> u16 {
    assert!(flag >= 0 && flag <= u16::MAX as c_int);
    flag as u16
}

/// `struct ifreq`, as the TUN ioctls use it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// A descriptor of one of an interface's queues.
#[derive(Debug)]
pub(super) struct Tap(File);

impl Tap {
    /// Opens `/dev/net/tun`.
    pub(super) fn open() -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        Ok(Self(file))
    }

    /// Attaches it to the interface `name` (shorter than [`NAME_LEN`]), which is created if there is none.
    pub(super) fn attach(&self, name: &str, mode: Mode) -> io::Result<()> {
        let mut request = Request { flags: mode.0, ..Request::default() };
        for (to, from) in request.name.iter_mut().take(NAME_LEN.saturating_sub(1)).zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq`.
        done(unsafe { ioctl_with_mut_ref(&self.0, libc::TUNSETIFF, &mut request) })
    }

    /// A descriptor that somebody else has attached. It does not block from now on.
    pub(super) fn given(fd: OwnedFd) -> io::Result<Self> {
        let raw = fd.as_raw_fd();
        // SAFETY: F_GETFL takes no argument, F_SETFL takes a number.
        let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
        done(flags)?;
        // SAFETY: as above.
        done(unsafe { libc::fcntl(raw, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
        Ok(Self(File::from(fd)))
    }

    /// The interface it is attached to, and how; but `IFF_NO_PI` means something else here. Fails where it is no TUN/TAP descriptor, or not attached.
    pub(super) fn attached(&self) -> io::Result<(String, Mode)> {
        let mut request = Request::default();
        // SAFETY: TUNGETIFF writes a `struct ifreq`; other drivers and files do not know the number.
        done(unsafe { ioctl_with_mut_ref(&self.0, libc::TUNGETIFF, &mut request) })?;
        let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok((String::from_utf8_lossy(name).into_owned(), Mode(request.flags)))
    }

    /// Sets the length of the header in front of each frame.
    pub(super) fn set_header_len(&self, len: c_int) -> io::Result<()> {
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        done(unsafe { ioctl_with_ref(&self.0, libc::TUNSETVNETHDRSZ, &len) })
    }

    /// Says what the reader of frames can do: they come with unfinished checksums and unsegmented accordingly.
    pub(super) fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes a number.
        done(unsafe { ioctl_with_val(&self.0, libc::TUNSETOFFLOAD, offloads.into()) })
    }

    /// Enables or disables the queue of a multi-queue interface: a disabled one gets no frames.
    pub(super) fn set_enabled(&self, enabled: bool) -> io::Result<()> {
        const ATTACH: u16 = flag(libc::IFF_ATTACH_QUEUE);
        const DETACH: u16 = flag(libc::IFF_DETACH_QUEUE);
        let request = Request { flags: if enabled { ATTACH } else { DETACH }, ..Request::default() };
        // SAFETY: TUNSETQUEUE reads a `struct ifreq`.
        done(unsafe { ioctl_with_ref(&self.0, libc::TUNSETQUEUE, &request) })
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> OwnedFd {
        self.0.into()
    }

    /// Throws away the frames that it has, as far as there can be so many.
    pub(super) fn drain(&self) {
        const LONGEST_QUEUE: usize = 4096;
        let mut beginning = [0; HEADER_LEN];
        for _ in 0..LONGEST_QUEUE {
            if !matches!(Here(&self.0).read(&mut beginning), Ok(1..)) {
                break;
            }
        }
    }

    /// Another descriptor of the same queue.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn done(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
