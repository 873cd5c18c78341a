//! Listing directories in an order that does not depend on the file system.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The files of a directory, by name; none when there is no such directory.
pub fn in_directory(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).map_err(|error| Error::io("read", directory, &error))?;
    let mut files: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}
