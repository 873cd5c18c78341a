//! Initramfs archives: the `newc` cpio format, written directly.
//!
//! Every field is determined by the content (no times, no owners, inode numbers in order), so the same files make the
//! same bytes: the deterministic lab depends on it.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Parent directories are added as they are needed.
pub struct Archive {
    bytes: Vec<u8>,
    names: std::collections::BTreeSet<String>,
}

impl Archive {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), names: std::collections::BTreeSet::new() }
    }

    /// A directory, and the ones above it.
    pub fn directory(&mut self, name: &str) {
        let name = relative(name);
        self.parents(name);
        if !name.is_empty() && self.names.insert(name.to_owned()) {
            self.header(name, DIRECTORY, 0, (0, 0));
        }
    }

    /// A regular file with its permission bits. A name that is there already keeps its first content.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len())
            .map_err(|_| Error::new(format!("{name}: too large for an initramfs (4 GiB)")))?;
        self.node(name, REGULAR | (permissions & 0o7777), length, (0, 0), content);
        Ok(())
    }

    /// A copy of a file of this machine, executable or not as it is there.
    pub fn copy(&mut self, name: &str, source: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let content = fs::read(source).map_err(|error| Error::io("read", source, &error))?;
        let metadata = fs::metadata(source).map_err(|error| Error::io("read", source, &error))?;
        self.file(name, metadata.permissions().mode() & 0o755, &content)
    }

    pub fn symlink(&mut self, name: &str, target: &str) {
        let length = u32::try_from(target.len()).unwrap_or(u32::MAX);
        self.node(name, SYMLINK, length, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.node(name, CHARACTER_DEVICE, 0, (major, minor), &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, (0, 0));
        self.bytes
    }

    fn node(&mut self, name: &str, mode: u32, length: u32, device: (u32, u32), content: &[u8]) {
        let name = relative(name);
        self.parents(name);
        if self.names.insert(name.to_owned()) {
            self.header(name, mode, length, device);
            self.bytes.extend_from_slice(content);
            self.align();
        }
    }

    fn parents(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn header(&mut self, name: &str, mode: u32, length: u32, (major, minor): (u32, u32)) {
        let inode = self.names.len();
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let name_length = name.len() + 1;
        // Fields: inode, mode, uid, gid, links, mtime, size, device of the file system (two), device (two), name, sum.
        let header = format!(
            "070701{inode:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{length:08X}{:08X}{:08X}\
             {major:08X}{minor:08X}{name_length:08X}{:08X}",
            0, 0, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn relative(name: &str) -> &str {
    name.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archive's members as the kernel reads them: name, mode, content.
    fn members(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut members = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let digits = &bytes[at + 6 + n * 8..at + 14 + n * 8];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let name_length = usize::try_from(field(11)).unwrap();
            let length = usize::try_from(field(6)).unwrap();
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_length - 1]).unwrap().to_owned();
            assert_eq!(bytes[at + 110 + name_length - 1], 0);
            let content = (at + 110 + name_length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(content, bytes.len());
                return members;
            }
            members.push((name, field(1), bytes[content..content + length].to_vec()));
            at = (content + length).next_multiple_of(4);
        }
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new();
        archive.file("/a/b/one", 0o755, b"1").unwrap();
        archive.file("a/b/two", 0o644, b"12345").unwrap();
        let members = members(&archive.finish());
        let names: Vec<_> = members.iter().map(|member| member.0.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two"]);
        assert_eq!(members[0].1, 0o040_755);
        assert_eq!(members[3].1, 0o100_644);
        assert_eq!(members[3].2, b"12345");
    }

    #[test]
    fn a_name_keeps_its_first_content() {
        let mut archive = Archive::new();
        archive.file("f", 0o644, b"first").unwrap();
        archive.file("/f", 0o644, b"second").unwrap();
        let members = members(&archive.finish());
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].2, b"first");
    }

    #[test]
    fn links_and_devices() {
        let mut archive = Archive::new();
        archive.symlink("bin/sh", "busybox");
        archive.character_device("dev/console", 5, 1);
        let bytes = archive.finish();
        let members = members(&bytes);
        assert_eq!(members[1], ("bin/sh".to_owned(), 0o120_777, b"busybox".to_vec()));
        assert_eq!(members[3], ("dev/console".to_owned(), 0o020_600, Vec::new()));
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let make = || {
            let mut archive = Archive::new();
            archive.file("x/y", 0o600, &[7; 33]).unwrap();
            archive.finish()
        };
        assert_eq!(make(), make());
    }
}
