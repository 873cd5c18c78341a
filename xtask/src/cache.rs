//! Slow results, kept by the content of what they were made from.
//!
//! An entry is a directory that appears whole or not at all: it is filled under another name and renamed. A lock file
//! per kind of entry keeps two runs from building the same thing at the same time.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What an entry was made from, as a short name for its directory.
pub struct Key(u64);

impl Key {
    /// FNV-1a over every input, each ended by a byte that UTF-8 does not have, so that inputs cannot run together.
    /// Names a cache entry, guards nothing.
    pub fn of(inputs: &[&[u8]]) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in inputs.iter().flat_map(|input| input.iter().chain(&[0xff])) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash)
    }
}

/// Where everything is kept.
pub fn root() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("FIRECREST_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("firecrest")))
        .or_else(|| Some(set("HOME")?.join(".cache/firecrest")))
        .ok_or_else(|| Error::new("no place for the cache: set FIRECREST_CACHE or HOME"))
}

/// The directory of an entry, built by `build` in a directory of its own when it is not there yet.
pub fn entry(kind: &str, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    entry_in(&root()?, kind, key, build)
}

fn entry_in(root: &Path, kind: &str, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = root.join(format!("{kind}-{:016x}", key.0));
    if path.is_dir() {
        return Ok(path);
    }
    fs::create_dir_all(root).map_err(|error| Error::io("create", root, &error))?;
    let _lock = lock(&root.join(format!("{kind}.lock")))?;
    if path.is_dir() {
        return Ok(path); // Another run built it while this one waited.
    }
    // Only the holder of the lock gets here, so what lies there is what a killed run left.
    let unfinished = Scratch::at(root.join(format!("{kind}.unfinished")))?;
    build(unfinished.path())?;
    fs::rename(unfinished.path(), &path)
        .map_err(|error| Error::io("move a finished entry to", &path, &error))?;
    Ok(path)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(|error| Error::io("create", path, &error))?;
    if file.try_lock().is_err() {
        println!("xtask: waiting for another run that holds {}", path.display());
        file.lock().map_err(|error| Error::io("lock", path, &error))?;
    }
    Ok(file)
}

/// A directory that is removed with this value, unless it was renamed away.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A directory under the system's temporary one, for this process only.
    pub fn new(name: &str) -> Result<Self> {
        Self::at(env::temp_dir().join(format!("firecrest-{name}-{}", std::process::id())))
    }

    fn at(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|error| Error::io("remove", &path, &error))?;
        }
        fs::create_dir_all(&path).map_err(|error| Error::io("create", &path, &error))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been renamed into place; and a leftover is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_where_inputs_end() {
        assert_ne!(Key::of(&[b"ab", b"c"]).0, Key::of(&[b"a", b"bc"]).0);
        assert_eq!(Key::of(&[b"ab", b"c"]).0, Key::of(&[b"ab", b"c"]).0);
    }

    #[test]
    fn an_entry_is_built_once() {
        let root = Scratch::new("cache-once").unwrap();
        let key = Key::of(&[b"x"]);
        let build = |dir: &Path| fs::write(dir.join("f"), "1").map_err(|e| Error::io("write", dir, &e));
        let first = entry_in(root.path(), "kind", &key, build).unwrap();
        let second = entry_in(root.path(), "kind", &key, |_| Err(Error::new("built twice"))).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(first.join("f")).unwrap(), "1");
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let root = Scratch::new("cache-fail").unwrap();
        let key = Key::of(&[b"x"]);
        let build = |dir: &Path| {
            fs::write(dir.join("half"), "").map_err(|e| Error::io("write", dir, &e))?;
            Err(Error::new("no"))
        };
        entry_in(root.path(), "kind", &key, build).unwrap_err();
        let left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kind.lock"]);
    }
}
