//! From a kernel, a command line and a machine to what lies where.
//!
//! Checks come before work: a request that cannot be met costs nothing but its error. What the CPU architecture
//! decides (where the boot protocol's tables go, what they hold, the first registers) is `x86_64`'s.

mod error;

#[cfg(test)]
mod tests;

pub use error::PlanError;

use crate::memory::Memory;
use crate::x86_64::{self as arch, cpu::CpuState};
use crate::{Image, Machine, Segment, cmdline, initrd};

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// PVH where an ELF has a PVH note and none that says it is Linux, else [`Protocol::Linux64`]: Linux entered by PVH
    /// looks through 256 CPUID leaves for Xen, each an exit.
    #[default]
    Auto,
    /// Linux's 64-bit boot protocol: an ELF at its entry, a bzImage at its 64-bit entry.
    Linux64,
    /// Xen's PVH: 32-bit protected mode, at the address in the kernel's note.
    Pvh,
}

/// What is to be booted, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// How to enter it.
    pub protocol: Protocol,
    /// Bytes of the initrd, if there is one; 0 is an error, because an empty file is never what was meant.
    pub initrd_len: Option<u64>,
    /// The kernel command line, without a NUL. The kernel gets these bytes and no others.
    pub cmdline: &'a [u8],
    /// The machine it is to find.
    pub machine: Machine<'a>,
}

/// Bytes that must lie in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Guest physical address of the first byte.
    pub guest_addr: u64,
    /// The bytes, at least one.
    pub bytes: Vec<u8>,
}

/// What lies where in guest memory, and the first state of the boot CPU. All other memory must be zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kernel's pieces, ascending by address.
    pub segments: Vec<Segment>,
    /// Guest address of the initrd, if one was asked for: page-aligned, and the pages it touches are its own, so
    /// that a file may be mapped there.
    pub initrd: Option<u64>,
    /// Everything else, each piece below 1 MiB.
    pub blobs: Vec<Blob>,
    /// The registers with which the boot CPU starts.
    pub boot_cpu: CpuState,
}

/// Where and in which mode the boot CPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Linux64(u64),
    Pvh(u64),
}

/// Works out what must lie where for `request`.
///
/// # Errors
/// [`PlanError`] says what of the machine, the kernel, the command line or the initrd does not fit.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    let Request { image, machine, .. } = request;
    let memory = Memory::new(machine.ram)?;
    arch::check_machine(machine)?;
    let entry = arch::entry(image.kernel(), image.segments(), request.protocol)?;
    check_segments(image.segments(), &memory, entry)?;
    let cmdline = cmdline::terminated(request.cmdline, arch::cmdline_limit(image.kernel()))?;

    let initrd = match request.initrd_len {
        None => None,
        Some(0) => return Err(PlanError::EmptyInitrd),
        Some(len) => {
            let limit = memory.low_end().min(arch::initrd_end(image.kernel()));
            let kernel_end = image.segments().last().map_or(0, Segment::end);
            let start = initrd::place(len, arch::layout::HIGH_RAM_START, limit, image.segments())
                .ok_or(PlanError::InitrdDoesNotFit { len, limit, kernel_end })?;
            Some(start..start.saturating_add(len))
        }
    };

    let start = arch::Start { entry, kernel: image.kernel(), memory, machine, initrd: initrd.clone() };
    let (blobs, boot_cpu) = start.prepare(cmdline)?;
    Ok(Plan { segments: image.segments().to_vec(), initrd: initrd.map(|range| range.start), blobs, boot_cpu })
}

/// Refuses segments that are not RAM or not the kernel's to take, and an entry that is in none of them.
fn check_segments(segments: &[Segment], memory: &Memory<'_>, entry: Entry) -> Result<(), PlanError> {
    for (index, segment) in segments.iter().enumerate() {
        let (start, end) = (segment.guest_addr, segment.end());
        if start < arch::layout::HIGH_RAM_START {
            return Err(PlanError::SegmentLow { index, start, end });
        }
        if !memory.covers(start, end) {
            return Err(PlanError::SegmentOutsideMemory { index, start, end });
        }
        let limit = arch::mapped_end(entry);
        if end > limit {
            return Err(PlanError::SegmentUnmapped { index, start, end, limit });
        }
    }
    let (Entry::Linux64(address) | Entry::Pvh(address)) = entry;
    if segments.iter().any(|segment| (segment.guest_addr..segment.end()).contains(&address)) {
        Ok(())
    } else {
        Err(PlanError::EntryOutsideSegments { entry: address })
    }
}
