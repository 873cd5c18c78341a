//! Files that are disks, and what lies on them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use firecrest_pattern::Pattern;

pub const MIB: u64 = 1 << 20;

/// A disk's file, gone when this is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// A file without content. Tests of one process need different names.
    pub fn empty(name: &str, size: u64) -> Self {
        Self::empty_in(&std::env::temp_dir(), name, size)
    }

    /// A file without content in a directory.
    pub fn empty_in(directory: &Path, name: &str, size: u64) -> Self {
        let path = directory.join(format!("firecrest-{}-{name}.img", std::process::id()));
        File::create(&path).unwrap().set_len(size).unwrap();
        Self(path)
    }

    /// A file full of a pattern.
    pub fn pattern(name: &str, size: u64, seed: u64) -> Self {
        let disk = Self::empty(name, size);
        Pattern::new(seed).write(&disk.0, 0, size).unwrap();
        disk
    }

    /// A copy of a file.
    pub fn copy(name: &str, of: impl AsRef<Path>) -> Self {
        let disk = Self::empty(name, 0);
        fs::copy(of, &disk.0).unwrap();
        disk
    }

    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// How many bytes of the host it takes.
    pub fn allocated(&self) -> u64 {
        fs::metadata(&self.0).unwrap().blocks() * 512
    }

    pub fn resize(&self, size: u64) {
        File::options().write(true).open(&self.0).unwrap().set_len(size).unwrap();
    }

    /// Asserts that a part of the disk is that part of a pattern.
    pub fn assert_pattern(&self, offset: u64, length: u64, seed: u64) {
        Pattern::new(seed).check(&self.0, offset, length).unwrap();
    }

    /// Asserts that the file system on the disk is whole and was left in order.
    pub fn assert_clean(&self) {
        let output = Command::new("e2fsck").args(["-f", "-n"]).arg(&self.0).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{complaints}");
        // A journal to be replayed is no error for e2fsck, but no clean unmount either.
        assert!(!complaints.contains("recover"), "{complaints}");
    }

    /// Asserts that a file of the file system on the disk is a pattern from its beginning.
    pub fn assert_file_pattern(&self, name: &str, length: u64, seed: u64) {
        let copy = Self(self.0.with_extension("file"));
        let dump = format!("dump {name} {}", copy.0.display());
        let output = Command::new("debugfs").args(["-R", &dump]).arg(&self.0).output().unwrap();
        assert!(copy.0.exists(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::metadata(&copy.0).unwrap().len(), length);
        copy.assert_pattern(0, length, seed);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A tmpfs that is soon full, gone when this is dropped.
pub struct SmallTmpfs(PathBuf);

impl SmallTmpfs {
    pub fn new(name: &str, size: u64) -> Self {
        let path = std::env::temp_dir().join(format!("firecrest-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let size = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status();
        assert!(mount.unwrap().success());
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
