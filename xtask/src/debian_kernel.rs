//! Debian's stock cloud kernel: what people have, and what the lab itself runs on.
//!
//! The package is downloaded and unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::{cache, packages, process};

/// Always depends on the newest one.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The unpacked kernel.
pub struct DebianKernel {
    pub vmlinuz: PathBuf,
    /// `lib/modules/VERSION`.
    modules: PathBuf,
}

impl DebianKernel {
    /// The file of a loadable module.
    pub fn module(&self, name: &str) -> Result<PathBuf> {
        find(&self.modules, &format!("{name}.ko"))
            .ok_or_else(|| Error::new(format!("no module {name} in {}", self.modules.display())))
    }
}

/// The kernel, downloaded if it is not in the cache.
pub fn ensure() -> Result<DebianKernel> {
    let (package, version) = match newest()? {
        Some(found) => found,
        None => {
            refresh_lists()?;
            newest()?
                .ok_or_else(|| Error::new(format!("apt knows of no {META_PACKAGE}; is this amd64 Debian?")))?
        }
    };
    let key = cache::Key::of(&[package.as_bytes(), version.as_bytes()]);
    let entry = cache::entry("debian-kernel", &key, |directory| unpack(&package, &version, directory))?;
    Ok(DebianKernel {
        vmlinuz: only_entry(&entry.join("boot"), "vmlinuz-")?,
        modules: only_entry(&entry.join("lib/modules"), "")?,
    })
}

/// The package that holds the newest kernel, and its version.
fn newest() -> Result<Option<(String, String)>> {
    let query = Command::new("apt-cache").args(["depends", META_PACKAGE]).stderr(Stdio::null()).output();
    let output = query.map_err(|error| Error::new(format!("cannot run apt-cache: {error}")))?;
    let Some(package) = packages::field(&String::from_utf8_lossy(&output.stdout), "Depends:") else {
        return Ok(None);
    };
    Ok(packages::candidate_version(&package)?.map(|version| (package, version)))
}

fn refresh_lists() -> Result<()> {
    if !packages::is_root()? {
        return Err(Error::new(format!(
            "apt does not know {META_PACKAGE} yet; refresh its lists with\n\n    sudo apt-get update\n"
        )));
    }
    println!("xtask: refreshing apt's package lists");
    packages::update()
}

fn unpack(package: &str, version: &str, directory: &Path) -> Result<()> {
    println!("xtask: downloading {package} {version}");
    let download = || {
        let package = format!("{package}={version}");
        let mut command = Command::new("apt-get");
        // Without apt's own user, who may not write here.
        command.args(["-qq", "-o", "APT::Sandbox::User=root", "download", &package]);
        process::run(command.current_dir(directory).stdout(Stdio::null()))
    };
    if let Err(first) = download() {
        // A list that has grown old names files that are gone.
        if !packages::is_root()? {
            return Err(first);
        }
        println!("xtask: {first}; refreshing apt's package lists and trying again");
        packages::update()?;
        download()?;
    }
    let archive = only_entry(directory, package)?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(directory))?;
    fs::remove_file(&archive).map_err(|error| Error::io("remove", &archive, &error))
}

/// The one thing in a directory whose name starts so.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let found = sorted(directory)
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.ok_or_else(|| Error::new(format!("no {prefix}* in {}", directory.display())))
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    sorted(directory).into_iter().find_map(|path| {
        if path.is_dir() && !path.is_symlink() {
            find(&path, name)
        } else {
            path.file_name().is_some_and(|file| file == name).then_some(path)
        }
    })
}

/// What is in a directory, in order; nothing when it cannot be read.
fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
