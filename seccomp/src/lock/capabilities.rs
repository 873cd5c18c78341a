//! Capabilities: the five sets of them, emptied.

use std::io;

use super::sys::{check, prctl};

/// Those that are asked about, by number.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Capability {
    SetGid = 6,
    SetUid = 7,
    SetPcap = 8,
    SysAdmin = 21,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

const OWN: Header = Header { version: VERSION, pid: 0 };

/// 32 of them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether the calling thread can use it.
pub(super) fn has(capability: Capability) -> io::Result<bool> {
    let (mut header, mut halves) = (OWN, [Half::default(); 2]);
    // SAFETY: the kernel reads the header and writes two halves, as of this version.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
    let [low, _] = halves;
    Ok(low.effective & 1_u32.wrapping_shl(capability as u32) != 0)
}

/// No program that is executed later gains any.
pub(super) fn empty_bounding_set() -> io::Result<()> {
    for number in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Ok(_) => {}
            // The first that the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Effective, permitted, inheritable; and with the latter two, by the kernel's own rule, ambient.
pub(super) fn drop_all() -> io::Result<()> {
    let (mut header, halves) = (OWN, [Half::default(); 2]);
    // SAFETY: the kernel reads the header and two halves, as of this version.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) }).map(drop)
}
