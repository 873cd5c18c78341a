//! Kernel files: which bytes go where, and how the kernel can be entered.
//!
//! A file is parsed once, with a few small reads, into an [`Image`] that holds no file handle and can be used for
//! any number of microVMs. Parsing checks everything that depends on the file alone; whether the kernel fits the
//! machine is [`plan`](crate::plan())'s to say.
//!
//! What must hold of every image: its segments are not empty, ascend by guest address, do not overlap or wrap,
//! and their file parts lie inside the file as it was when it was parsed.

mod bzimage;
mod elf;
mod error;
mod note;

#[cfg(test)]
mod tests;

use linux_loader::bootparam::setup_header;

pub(crate) use bzimage::ENTRY_OFFSET as BZIMAGE_ENTRY_OFFSET;
pub use error::ImageError;

use crate::ReadAt;

/// Bytes of the file's beginning that decide what it is: enough for an ELF header and for a setup header.
const HEAD_LEN: usize = 0x280;

/// One contiguous piece of the kernel in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address of the first byte; any alignment.
    pub guest_addr: u64,
    /// Where in the kernel file the bytes begin.
    pub file_offset: u64,
    /// How many bytes come from the file.
    pub file_len: u64,
    /// How many bytes the kernel takes in memory; those beyond `file_len` are zero.
    pub mem_len: u64,
}

impl Segment {
    /// The guest physical address just after the segment.
    pub fn end(&self) -> u64 {
        self.guest_addr.saturating_add(self.mem_len)
    }
}

/// What kind of kernel file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An uncompressed 64-bit ELF (`vmlinux`).
    #[non_exhaustive]
    Elf {
        /// The ELF header's entry address.
        entry: u64,
        /// The 32-bit entry of the Xen note `XEN_ELFNOTE_PHYS32_ENTRY`, where there is one.
        pvh_entry: Option<u64>,
    },
    /// A compressed kernel that unpacks itself (`bzImage`).
    #[non_exhaustive]
    BzImage {
        /// Boot protocol version: major in the high byte, minor in the low one.
        version: u16,
    },
}

/// What is known of a kernel besides its segments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// `linux`: a note says so, and `entry` is that of the 64-bit boot protocol.
    Elf {
        entry: u64,
        pvh_entry: Option<u64>,
        linux: bool,
    },
    BzImage {
        header: setup_header,
    },
}

/// A kernel file, understood.
#[derive(Clone, Debug)]
pub struct Image {
    segments: Vec<Segment>,
    kernel: Kernel,
}

impl Image {
    /// Finds out what kernel `source` holds.
    ///
    /// # Errors
    /// [`ImageError`] says what is wrong with the file.
    pub fn parse(source: &(impl ReadAt + ?Sized)) -> Result<Image, ImageError> {
        let len = source.len().map_err(ImageError::Read)?;
        if len == 0 {
            return Err(ImageError::Empty);
        }
        let mut head = [0; HEAD_LEN];
        let available = usize::try_from(len).map_or(HEAD_LEN, |len| len.min(HEAD_LEN));
        let head = head.get_mut(..available).unwrap_or_default();
        source.read_exact_at(head, 0).map_err(ImageError::Read)?;
        let head = &*head;

        if elf::is_elf(head) {
            elf::parse(source, head, len)
        } else if bzimage::is_bzimage(head) {
            bzimage::parse(head, len)
        } else {
            let mut first = [0; 4];
            first.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
            Err(ImageError::Unrecognized { first })
        }
    }

    /// The pieces of the kernel in guest memory, ascending by address, at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What kind of file it is.
    pub fn format(&self) -> Format {
        match self.kernel {
            Kernel::Elf { entry, pvh_entry, .. } => Format::Elf { entry, pvh_entry },
            Kernel::BzImage { header } => Format::BzImage { version: header.version },
        }
    }

    /// Whether the file says that it is Linux.
    pub fn is_linux(&self) -> bool {
        !matches!(self.kernel, Kernel::Elf { linux: false, .. })
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

/// Refuses segments of which two want the same memory; sorts them by address.
fn ascending(mut segments: Vec<Segment>) -> Result<Vec<Segment>, ImageError> {
    segments.sort_unstable_by_key(|segment| segment.guest_addr);
    for (first, second) in segments.iter().zip(segments.iter().skip(1)) {
        if first.end() > second.guest_addr {
            return Err(ImageError::SegmentsOverlap {
                first_start: first.guest_addr,
                first_end: first.end(),
                second_start: second.guest_addr,
                second_end: second.end(),
            });
        }
    }
    Ok(segments)
}
