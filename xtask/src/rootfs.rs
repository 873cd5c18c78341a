//! The guest's root file system: an ext4 image with busybox, the tools device tests use, our init and the scripts.
//!
//! The tools are this machine's own, copied with their libraries: the guest's user space is a Debian that was cut down
//! to what runs. Image and contents are the same for the same files, but for the times at which inodes were changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::{cache, cargo, files, guest, packages, process, programs};

/// What busybox does not have, or does less well; the shell too, since busybox's own takes its own programs first.
const TOOLS: [(&str, &str); 6] = [
    ("blkdiscard", "blkdiscard"),
    ("dash", "sh"),
    ("ethtool", "ethtool"),
    ("fio", "fio"),
    ("iperf3", "iperf3"),
    ("mke2fs", "mke2fs"),
];
const DIRECTORIES: [&str; 8] = ["proc", "sys", "dev", "run", "tmp", "root", "mnt", "sbin"];
/// Goes into the cache key: raise it when the way of building changes.
const RECIPE: &[u8] = b"1";
/// For the file system's own structures, and for what a guest that may write adds.
const ROOM_MIB: u64 = 16;
/// So that the same files make the same image.
const UUID: &str = "f17ec2e5-0000-4000-8000-000000000001";

/// The image, built if it is not in the cache.
pub fn ensure() -> Result<PathBuf> {
    packages::ensure(packages::ROOTFS)?;
    let contents = contents()?;
    let key = key(&contents)?;
    let entry = cache::entry("rootfs", &cache::Key::of(&[key.as_bytes(), RECIPE]), |directory| {
        println!("xtask: building the guest's root file system");
        let tree = directory.join("tree");
        let bytes = fill(&tree, &contents)?;
        make_image(&tree, &directory.join("root.ext4"), bytes)?;
        fs::remove_dir_all(&tree).map_err(|error| Error::io("remove", &tree, &error))
    })?;
    Ok(entry.join("root.ext4"))
}

/// A file there, and where it comes from.
struct Content {
    name: String,
    source: PathBuf,
}

impl Content {
    fn new(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), source: source.into() }
    }
}

fn contents() -> Result<Vec<Content>> {
    let pattern = cargo::executables(&["build", "--release", "--package", "firecrest-pattern"])?;
    let mut contents = vec![
        Content::new("bin/busybox", guest::BUSYBOX),
        Content::new("bin/pattern", cargo::path_of(&pattern, "firecrest-pattern")?),
    ];
    for (tool, name) in TOOLS {
        let program = programs::find(tool)?;
        let libraries = programs::libraries(&program);
        contents.push(Content::new(format!("bin/{name}"), program));
        for library in libraries {
            contents.push(Content { name: relative(&library), source: library });
        }
    }
    for script in files::in_directory(&cargo::workspace().join("tests/guest"))? {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        contents.push(Content::new(format!("run/{name}"), script));
    }
    contents.sort_by(|a, b| a.name.cmp(&b.name));
    contents.dedup_by(|a, b| a.name == b.name);
    Ok(contents)
}

fn relative(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// What tells these contents from others. Programs and libraries are replaced, never edited, so that size and time
/// stand for what is in them; reading a hundred megabytes would take longer than it saves.
fn key(contents: &[Content]) -> Result<String> {
    let mut key = guest::INIT.to_owned();
    for Content { name, source } in contents {
        let metadata = fs::metadata(source).map_err(|error| Error::io("read", source, &error))?;
        let modified = metadata.modified().map_err(|error| Error::io("read", source, &error))?;
        let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        key += &format!("\n{name} {} {}", metadata.len(), age.as_nanos());
    }
    Ok(key)
}

/// Makes the tree, and says how large its files are.
fn fill(tree: &Path, contents: &[Content]) -> Result<u64> {
    for directory in DIRECTORIES {
        let path = tree.join(directory);
        fs::create_dir_all(&path).map_err(|error| Error::io("make", &path, &error))?;
    }
    let mut bytes = 0;
    for Content { name, source } in contents {
        let path = tree.join(name);
        let parent = path.parent().unwrap_or(tree);
        fs::create_dir_all(parent).map_err(|error| Error::io("make", parent, &error))?;
        bytes += fs::copy(source, &path).map_err(|error| Error::io("copy", source, &error))?;
    }
    for program in guest::busybox_programs()?.lines() {
        let path = tree.join("bin").join(program);
        // A tool of the same name goes first.
        if !path.exists() {
            symlink("busybox", &path).map_err(|error| Error::io("make", &path, &error))?;
        }
    }
    let init = tree.join("sbin/init");
    fs::write(&init, guest::INIT).map_err(|error| Error::io("make", &init, &error))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .map_err(|error| Error::io("make", &init, &error))?;
    age(tree)?;
    Ok(bytes)
}

/// Gives everything one time.
fn age(path: &Path) -> Result<()> {
    let failed = |error| Error::io("set the time of", path, &error);
    if path.is_symlink() {
        return Ok(());
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            age(&entry.map_err(failed)?.path())?;
        }
    }
    let file = fs::File::open(path).map_err(failed)?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).map_err(failed)
}

/// Without a journal, which a file system that is mostly read-only has no use for.
fn make_image(tree: &Path, image: &Path, bytes: u64) -> Result<()> {
    let mib = (bytes >> 20) + (bytes >> 24) + ROOM_MIB;
    let mut command = Command::new(programs::find("mke2fs")?);
    command.args(["-qF", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-m", "0", "-N", "4096"]);
    command.args(["-U", UUID, "-E", &format!("hash_seed={UUID},root_owner=0:0"), "-d"]);
    command.arg(tree).arg(image).arg(format!("{mib}M"));
    // The tool's own defaults, not this machine's; and a fixed time.
    command.stdout(Stdio::null());
    process::run(command.env("MKE2FS_CONFIG", "/nonexistent").env("E2FSPROGS_FAKE_TIME", "1"))
}
