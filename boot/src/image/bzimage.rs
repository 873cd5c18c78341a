//! Compressed kernels: bzImage, entered at their 64-bit entry.
//!
//! Linux's `Documentation/arch/x86/boot.rst`. The file is a real-mode part, which we skip, and a protected-mode
//! part, which unpacks the kernel. It is loaded at the address the kernel prefers: a kernel loaded lower moves
//! itself there, and one loaded higher gains nothing. There it needs `init_size` bytes to unpack and run in.

use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};

use super::{Image, ImageError, Kernel, Segment};
use crate::bytes::structure;

/// Where the setup header lies, in the file as in the zero page.
const HEADER_OFFSET: usize = 0x1f1;
/// The signature's place, and what stands there.
const SIGNATURE_OFFSET: usize = 0x202;
const SIGNATURE: &[u8] = b"HdrS";
/// The byte from which the header's end is counted, that count's own place.
const HEADER_END_BASE: usize = 0x202;
const HEADER_END_OFFSET: usize = 0x201;
const BOOT_FLAG_OFFSET: usize = 0x1fe;
const BOOT_FLAG: [u8; 2] = [0x55, 0xaa];
/// Protocol 2.12, the first to say whether there is a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;
/// From the protected-mode part's first byte to the 64-bit entry.
pub(crate) const ENTRY_OFFSET: u64 = 0x200;

const SECTOR: u64 = 512;
/// `setup_sects` that stands for zero.
const DEFAULT_SETUP_SECTS: u8 = 4;
/// `syssize` counts in units of 16 bytes.
const PARAGRAPH: u64 = 16;

/// Whether a file that begins so is a bzImage, or the first part of one.
pub(super) fn is_bzimage(head: &[u8]) -> bool {
    let at = |offset: usize| head.get(offset..).unwrap_or_default();
    at(BOOT_FLAG_OFFSET).starts_with(&BOOT_FLAG) && at(SIGNATURE_OFFSET).starts_with(SIGNATURE)
}

/// Parses the bzImage of `len` bytes that begins with `head`.
pub(super) fn parse(head: &[u8], len: u64) -> Result<Image, ImageError> {
    let Some(header) = setup(head) else {
        let needed = HEADER_OFFSET.saturating_add(size_of::<setup_header>()) as u64;
        return Err(ImageError::Truncated { len, what: "setup header", needed });
    };
    let (version, xloadflags, loadflags) = (header.version, header.xloadflags, header.loadflags);
    if version < MIN_VERSION {
        return Err(ImageError::BzImageTooOld { version });
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        return Err(ImageError::BzImageNo64BitEntry { xloadflags });
    }
    if loadflags & LOADED_HIGH == 0 {
        return Err(ImageError::BzImageNotLoadedHigh { loadflags });
    }

    let setup_sects = if header.setup_sects == 0 { DEFAULT_SETUP_SECTS } else { header.setup_sects };
    let file_offset = u64::from(setup_sects).saturating_add(1).saturating_mul(SECTOR);
    let file_len = len.saturating_sub(file_offset);
    // The last paragraph may be incomplete; the code before and at the entry may not.
    let declared = u64::from(header.syssize).saturating_mul(PARAGRAPH);
    let least = declared.saturating_sub(PARAGRAPH.saturating_sub(1)).max(ENTRY_OFFSET.saturating_add(1));
    if file_len < least {
        let needed = file_offset.saturating_add(least);
        return Err(ImageError::Truncated { len, what: "protected-mode code", needed });
    }

    let (address, alignment) = (header.pref_address, header.kernel_alignment);
    if !alignment.is_power_of_two() || !address.is_multiple_of(u64::from(alignment)) {
        return Err(ImageError::BzImageAlignment { address, alignment });
    }
    let mem_len = u64::from(header.init_size).max(file_len);
    if address.checked_add(mem_len).is_none() {
        return Err(ImageError::SegmentAddressOverflow { index: 0, addr: address, len: mem_len });
    }
    let segments = vec![Segment { guest_addr: address, file_offset, file_len, mem_len }];
    Ok(Image { segments, kernel: Kernel::BzImage { header } })
}

/// The setup header in `head`. It says itself where it ends; what we know of beyond that is zero.
fn setup(head: &[u8]) -> Option<setup_header> {
    let end = HEADER_END_BASE.checked_add(usize::from(*head.get(HEADER_END_OFFSET)?))?;
    let mut bytes = [0; size_of::<setup_header>()];
    let known = head.get(HEADER_OFFSET..)?.get(..bytes.len())?;
    let given = end.saturating_sub(HEADER_OFFSET);
    bytes.iter_mut().zip(known).take(given).for_each(|(to, from)| *to = *from);
    structure(&bytes)
}
