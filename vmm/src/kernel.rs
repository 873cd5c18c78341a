//! A kernel to boot: its image, command line and initrd, and the files that hold them.
//!
//! A kernel opened from a path is *mapped* into each guest: the guest's pages are the file's own until the
//! guest writes them, so guests share them and nothing is copied at the start. It follows that the file must
//! not be changed in place while a guest runs from it: a guest may then see the change, and a guest that
//! touches a page of a file that has been truncated ends with
//! [`CrashReason::MemoryFault`](crate::CrashReason::MemoryFault). Replacing the file (writing another and
//! renaming it) is harmless. [`Kernel::sealed`] copies the kernel once into memory that nobody can change;
//! use it where one kernel starts many guests from files that others may write.
//!
//! A guest with devices is another matter: devices touch whatever memory their guest names, and a page that is
//! gone would be the whole process's end. For such a guest only what is sealed is mapped; what is not is copied.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use firecrest_boot::{Image, Protocol};
use vmm_sys_util::syscall::SyscallReturnCode;

use crate::error::KernelError;

/// A kernel to boot. Cloning it shares the open files.
#[derive(Clone, Debug)]
#[must_use]
pub struct Kernel {
    pub(crate) source: Arc<Source>,
    pub(crate) cmdline: Vec<u8>,
    pub(crate) initrd: Option<Arc<Initrd>>,
    pub(crate) protocol: Protocol,
}

/// An image and the file it was read from.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    pub(crate) file: File,
    pub(crate) image: Image,
}

#[derive(Debug)]
pub(crate) struct Initrd {
    pub(crate) file: File,
    pub(crate) len: u64,
}

impl Kernel {
    /// Opens an uncompressed ELF kernel (`vmlinux`) or a bzImage.
    ///
    /// # Errors
    /// The file cannot be read, or is no kernel for this kind of machine.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KernelError> {
        let path = path.as_ref();
        let (file, _) = open_regular(path)?;
        Self::parse(path.display().to_string(), file)
    }

    /// Takes a kernel from memory, and keeps it in a sealed memfd.
    ///
    /// # Errors
    /// The bytes are no kernel, or the host has no memory for them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KernelError> {
        let name = "kernel in memory".to_owned();
        match seal(bytes) {
            Ok((file, _)) => Self::parse(name, file),
            Err(source) => Err(KernelError::Seal { name, source }),
        }
    }

    fn parse(name: String, file: File) -> Result<Self, KernelError> {
        match Image::parse(&file) {
            Ok(image) => Ok(Self {
                source: Arc::new(Source { name, file, image }),
                cmdline: Vec::new(),
                initrd: None,
                protocol: Protocol::Auto,
            }),
            Err(source) => Err(KernelError::Image { name, source }),
        }
    }

    /// The same kernel, its image and its initrd copied into memfds that are sealed against every change.
    ///
    /// # Errors
    /// The file cannot be read any more, is no kernel any more, or the host has no memory for it.
    pub fn sealed(&self) -> Result<Self, KernelError> {
        let name = &self.source.name;
        let copy = |file, name| seal_file(file).map_err(|source| KernelError::Seal { name, source });
        let (file, _) = copy(&self.source.file, name.clone())?;
        let initrd = self.initrd.as_ref().map(|initrd| copy(&initrd.file, format!("initrd of {name}")));
        let initrd = initrd.transpose()?.map(|(file, len)| Arc::new(Initrd { file, len }));
        Ok(Self { source: Self::parse(name.clone(), file)?.source, initrd, ..self.clone() })
    }

    /// Sets the command line. Its length and bytes are checked by [`Builder::build`](crate::Builder::build):
    /// at most what the kernel's boot protocol allows (2,047 bytes), and no NUL.
    pub fn cmdline(mut self, cmdline: impl Into<Vec<u8>>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// Opens an initrd (a cpio archive, usually), which is mapped into each guest as the kernel is.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or is not a regular file.
    pub fn initrd(mut self, path: impl AsRef<Path>) -> Result<Self, KernelError> {
        let path = path.as_ref();
        let (file, len) = open_regular(path)?;
        if len == 0 {
            return Err(KernelError::EmptyInitrd { path: path.to_owned() });
        }
        self.initrd = Some(Arc::new(Initrd { file, len }));
        Ok(self)
    }

    /// Sets the way the kernel is entered; [`Protocol::Auto`] unless set.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }
}

/// Opens a regular file, and says how long it is. Anything else has no length to plan with, and opening it may
/// wait for somebody else (a FIFO), which `O_NONBLOCK` prevents.
fn open_regular(path: &Path) -> Result<(File, u64), KernelError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() {
        Ok((file, metadata.len()))
    } else {
        Err(KernelError::Kind { path: path.to_owned() })
    }
}

/// Copies all of a file into a memfd, and seals it.
fn seal_file(file: &File) -> io::Result<(File, u64)> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    seal(file)
}

/// Copies what is left of `from` into a memfd, seals it, and says how long it is.
fn seal(mut from: impl Read) -> io::Result<(File, u64)> {
    // SAFETY: the name is a NUL-terminated string; the call makes a new descriptor or fails.
    let fd = unsafe {
        libc::memfd_create(c"firecrest-kernel".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    };
    let fd = SyscallReturnCode(fd).into_result()?;
    // SAFETY: the descriptor was made just now and is nobody else's.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let len = io::copy(&mut from, &mut file)?;
    file.flush()?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: a descriptor of ours and plain integers.
    let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    SyscallReturnCode(sealed).into_empty_result().map(|()| (file, len))
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
