//! What the caller says about a disk, and all that can be wrong with it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::Instant;

use super::disk::{self, Disk};
use super::protocol::{Config, QUEUE_SIZE, SECTOR, SERIAL_LEN, feature};
use super::worker::Worker;
use crate::clock::Clock;
use crate::rate_limit::{Limiter, RateLimit, RateLimitError};
use crate::throttle::{Limit, Throttle};
use crate::virtio::{Card, Device, Kind};

const MAX_QUEUES: u16 = 16;
/// The largest physical block that is worth telling the guest of.
const MAX_PHYSICAL_BLOCK: u64 = 64 << 10;

/// How a disk's requests are carried out.
///
/// Measured with `examples/block_engines.rs`: where the host's cache has the data, system calls are as fast
/// or, for a request at a time, faster; where it has not, and the guest asks for many at once, io_uring is
/// several times as fast. System calls are the default: a root file system is mostly in the cache, and they
/// need nothing more of the host and of a thread's system call filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockEngine {
    /// One after the other, by system calls of the queue's thread.
    #[default]
    Sync,
    /// Many at once, by io_uring.
    IoUring,
}

/// When a write that has completed is on stable storage. A driver that knows how (CONFIG_WCE) may change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Once the guest has flushed it.
    #[default]
    Writeback,
    /// At once.
    Writethrough,
}

/// A disk to be built.
#[derive(Clone, Debug)]
#[must_use]
pub struct Block {
    path: PathBuf,
    read_only: bool,
    serial: String,
    engine: BlockEngine,
    queues: u16,
    block_size: u32,
    cache: Cache,
    rate_limit: RateLimit,
}

/// Why a disk could not be built. Nothing has been started, and nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The file could not be opened.
    #[error("cannot open the disk {path}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The path leads to something else than a file or a block device.
    #[error("{path} is neither a regular file nor a block device", path = path.display())]
    Type {
        /// The path.
        path: PathBuf,
    },
    /// Someone else writes to the file, or reads what this disk would write to.
    #[error("the disk {path} is locked by another", path = path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot lock the file.
    #[error("cannot lock the disk {path}", path = path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The size could not be found out.
    #[error("cannot tell the size of the disk {path}", path = path.display())]
    Measure {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// There is not even one block.
    #[error("the disk {path} has {size} bytes, less than one block of {block_size}", path = path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The block size in bytes.
        block_size: u32,
    },
    /// The last block is not complete: the guest would see less than the file holds.
    #[error(
        "the disk {path} has {size} bytes, no multiple of its block size {block_size}: pad it", path = path.display()
    )]
    Partial {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The block size in bytes.
        block_size: u32,
    },
    /// The block size is none that guests know.
    #[error("a block size of {block_size} is neither 512 nor 4096")]
    BlockSize {
        /// The size asked for, in bytes.
        block_size: u32,
    },
    /// The serial number is too long.
    #[error("the serial number {serial:?} has {len} bytes, more than 20", len = serial.len())]
    Serial {
        /// The serial number asked for.
        serial: String,
    },
    /// The number of queues is out of range.
    #[error("{queues} queues are not between 1 and 16")]
    Queues {
        /// The number asked for.
        queues: u16,
    },
    /// The rate limit lets nothing pass.
    #[error("the disk {path} cannot have its rate limit", path = path.display())]
    RateLimit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RateLimitError,
    },
    /// The host has no descriptors left.
    #[error("cannot make the descriptors that the disk {path} needs", path = path.display())]
    Descriptors {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Block {
    /// A disk that is this file or block device, as it is ("raw").
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            serial: String::new(),
            engine: BlockEngine::default(),
            queues: 1,
            block_size: 512,
            cache: Cache::default(),
            rate_limit: RateLimit::default(),
        }
    }

    /// Whether the guest may only read. Several disks may then be the same file.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The serial number, of up to 20 bytes, by which the guest can tell the disk from others.
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = serial.into();
        self
    }

    /// How requests are carried out.
    pub fn engine(mut self, engine: BlockEngine) -> Self {
        self.engine = engine;
        self
    }

    /// The number of queues, from 1 to 16, each with a thread: as many as vCPUs are to do I/O at once.
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// The size of the blocks that the guest reads and writes: 512 or 4096 bytes.
    pub fn block_size(mut self, block_size: u32) -> Self {
        self.block_size = block_size;
        self
    }

    /// When writes are on stable storage.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// How much the disk may do, all its queues together.
    pub fn rate_limit(mut self, rate_limit: RateLimit) -> Self {
        self.rate_limit = rate_limit;
        self
    }

    /// Checks all that was said, opens and locks the file.
    ///
    /// # Errors
    /// What was said cannot be, or the host refuses.
    pub fn build(self) -> Result<Device, BlockError> {
        let serial = self.check()?;
        let path = &self.path;
        let limiter = Limiter::of(self.rate_limit, Instant::now())
            .map_err(|source| BlockError::RateLimit { path: path.clone(), source })?;
        let file = open(path, self.read_only)?;
        let size = self.size(&file)?;
        let writeback = u8::from(self.cache == Cache::Writeback);
        let byte = Arc::new(AtomicU8::new(writeback));
        let config = Config {
            capacity: size / SECTOR,
            block_size: self.block_size,
            physical_block_exp: self.physical_block_exp(&file),
            writeback,
            queues: self.queues,
        };
        let disk = Arc::new(Disk {
            file,
            read_only: self.read_only,
            block_size: self.block_size,
            serial,
            cache: self.cache,
            writeback: Arc::clone(&byte),
            size: AtomicU64::new(size),
        });
        let descriptors = |source| BlockError::Descriptors { path: path.clone(), source };
        let limit = limiter.map(|limiter| io::Result::Ok(Limit::new(limiter, Arc::new(Clock::new()?))));
        let limit = limit.transpose().map_err(descriptors)?.map(Arc::new);
        let card = |index| -> io::Result<(Vec<u16>, Box<dyn Card>)> {
            let throttle = Throttle::new(limit.clone());
            Ok((vec![index], Box::new(Worker::new(Arc::clone(&disk), index, self.engine, throttle)?)))
        };
        Ok(Device {
            kind: Kind::Block,
            features: self.features(config.physical_block_exp),
            config: config.bytes(),
            writable: (!self.read_only).then_some((Config::WRITEBACK, byte)),
            queue_sizes: vec![QUEUE_SIZE; self.queues.into()],
            cards: (0..self.queues).map(card).collect::<io::Result<_>>().map_err(descriptors)?,
            back_end: Some(disk.clone()),
        })
    }

    /// What can be said without the host. Gives the serial number as the guest is told it.
    fn check(&self) -> Result<[u8; SERIAL_LEN], BlockError> {
        let &Self { queues, block_size, .. } = self;
        if queues == 0 || queues > MAX_QUEUES {
            return Err(BlockError::Queues { queues });
        }
        if !matches!(block_size, 512 | 4096) {
            return Err(BlockError::BlockSize { block_size });
        }
        let mut serial = [0; SERIAL_LEN];
        match serial.get_mut(..self.serial.len()) {
            Some(part) => part.copy_from_slice(self.serial.as_bytes()),
            None => return Err(BlockError::Serial { serial: self.serial.clone() }),
        }
        Ok(serial)
    }

    fn size(&self, file: &File) -> Result<u64, BlockError> {
        let &Self { ref path, block_size, .. } = self;
        let path = || path.clone();
        let size = disk::measure(file).map_err(|source| BlockError::Measure { path: path(), source })?;
        if size < block_size.into() {
            return Err(BlockError::TooShort { path: path(), size, block_size });
        }
        if !size.is_multiple_of(block_size.into()) {
            return Err(BlockError::Partial { path: path(), size, block_size });
        }
        Ok(size)
    }

    /// The file system's blocks: a write of less makes it read the rest first.
    fn physical_block_exp(&self, file: &File) -> u8 {
        let size = file.metadata().map_or(0, |metadata| metadata.blksize()).min(MAX_PHYSICAL_BLOCK);
        let exp = size.checked_ilog2().and_then(|exp| exp.checked_sub(self.block_size.checked_ilog2()?));
        exp.and_then(|exp| u8::try_from(exp).ok()).unwrap_or(0)
    }

    fn features(&self, physical_block_exp: u8) -> u64 {
        let mut features = feature::SEG_MAX | feature::BLOCK_SIZE;
        if self.read_only {
            features |= feature::READ_ONLY;
        } else {
            features |= feature::FLUSH | feature::CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES;
        }
        if self.queues > 1 {
            features |= feature::MULTI_QUEUE;
        }
        if physical_block_exp > 0 {
            features |= feature::TOPOLOGY;
        }
        features
    }
}

/// Opens and locks the file: for us alone where we write, with other readers where we do not.
fn open(path: &Path, read_only: bool) -> Result<File, BlockError> {
    let error = |source| BlockError::Open { path: path.to_owned(), source };
    let is_disk = |metadata: std::fs::Metadata| metadata.is_file() || metadata.file_type().is_block_device();
    let not_a_disk = || BlockError::Type { path: path.to_owned() };
    // Before it is opened: to open a FIFO or a terminal may wait, or do something.
    if !is_disk(path.metadata().map_err(error)?) {
        return Err(not_a_disk());
    }
    let file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(error)?;
    if !is_disk(file.metadata().map_err(error)?) {
        return Err(not_a_disk());
    }
    let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BlockError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(BlockError::Lock { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
