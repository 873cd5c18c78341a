//! The guest kernel: built from Debian's kernel sources, as they are, and `resources/kernel-config`, kept by the content
//! of both. Of the ELF, what only fills space is not loaded (`filler.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cargo;
use crate::error::{Error, Result};
use crate::{args, cache, filler, kconfig, packages, process};

const HELP: &str = "\
Builds the guest kernel from Debian's linux-source-6.1 and resources/kernel-config: 3 to 6 minutes on two CPUs.
The result is cached by the content of both. Prints where vmlinux, bzImage and the full configuration are.

Usage: cargo xtask kernel
";

const SOURCE_PACKAGE: &str = "linux-source-6.1";
const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";
/// Goes into the cache key: raise it when the way of building changes.
const RECIPE: &[u8] = b"2";
/// A build that takes this long has hung.
const LIMIT: Duration = Duration::from_secs(3600);
/// Roughly how many lines the kernel's build prints, for the progress line only.
const STEPS: usize = 1_620;

/// The built kernel in its forms.
pub struct Kernel {
    /// Uncompressed ELF, for the Linux 64-bit protocol and PVH.
    pub vmlinux: PathBuf,
    pub bzimage: PathBuf,
    /// The full configuration.
    pub config: PathBuf,
}

pub fn command(parser: lexopt::Parser) -> Result<u8> {
    if args::only_help(parser, HELP)? {
        return Ok(0);
    }
    let kernel = ensure()?;
    println!("{}\n{}\n{}", kernel.vmlinux.display(), kernel.bzimage.display(), kernel.config.display());
    Ok(0)
}

/// The guest kernel, built if it is not in the cache.
pub fn ensure() -> Result<Kernel> {
    let recipe = Recipe::read()?;
    packages::ensure(packages::KERNEL)?;
    let version = packages::installed_version(SOURCE_PACKAGE)?;
    let inputs = [recipe.fragment.as_bytes(), version.as_bytes(), RECIPE];
    let entry = cache::entry("kernel", &cache::Key::of(&inputs), |directory| {
        println!("xtask: kernel: building from {SOURCE_PACKAGE} {version}; unpacking");
        build(&recipe, directory)
    })?;
    Ok(Kernel {
        vmlinux: entry.join("vmlinux"),
        bzimage: entry.join("bzImage"),
        config: entry.join("config"),
    })
}

/// What of this repository goes into the kernel.
struct Recipe {
    fragment_path: PathBuf,
    fragment: String,
}

impl Recipe {
    fn read() -> Result<Self> {
        let resources = cargo::workspace().join("resources");
        let fragment_path = resources.join("kernel-config");
        let fragment =
            fs::read_to_string(&fragment_path).map_err(|error| Error::io("read", &fragment_path, &error))?;
        Ok(Self { fragment_path, fragment })
    }
}

fn build(recipe: &Recipe, directory: &Path) -> Result<()> {
    let tree = directory.join("source");
    fs::create_dir(&tree).map_err(|error| Error::io("create", &tree, &error))?;
    process::run(Command::new("tar").args(["--strip-components=1", "-xf", SOURCE, "-C"]).arg(&tree))?;
    configure(&tree, &recipe.fragment_path, &recipe.fragment)?;
    compile(&tree)?;

    let vmlinux = directory.join("vmlinux");
    process::run(
        Command::new("strip").arg("--strip-debug").arg("-o").arg(&vmlinux).arg(tree.join("vmlinux")),
    )?;
    let mut bytes = fs::read(&vmlinux).map_err(|error| Error::io("read", &vmlinux, &error))?;
    filler::leave_out(&mut bytes)?;
    fs::write(&vmlinux, bytes).map_err(|error| Error::io("write", &vmlinux, &error))?;
    for (from, to) in [("arch/x86/boot/bzImage", "bzImage"), (".config", "config")] {
        let source = tree.join(from);
        fs::rename(&source, directory.join(to)).map_err(|error| Error::io("keep", &source, &error))?;
    }
    fs::remove_dir_all(&tree).map_err(|error| Error::io("remove", &tree, &error))
}

/// Everything off, then what the fragment names and what that selects: an option nobody named cannot slip in by its
/// default, as it would with `tinyconfig` followed by `olddefconfig`.
fn configure(tree: &Path, fragment_path: &Path, fragment: &str) -> Result<()> {
    process::run(make(tree).arg("--silent").arg("allnoconfig").env("KCONFIG_ALLCONFIG", fragment_path))?;
    let path = tree.join(".config");
    let config = fs::read_to_string(&path).map_err(|error| Error::io("read", &path, &error))?;
    let lost = kconfig::lost(fragment, &config);
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "the kernel's configuration did not take these lines of {}:\n  {}",
        fragment_path.display(),
        lost.join("\n  ")
    )))
}

fn compile(tree: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Stderr goes along, or a failure would be told without its reason.
    let script = format!("exec make -j{jobs} vmlinux bzImage 2>&1");
    let mut command = process::dies_with_us("sh");
    command.arg("-c").arg(script).current_dir(tree).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = process::spawn(reproducible(&mut command))?;
    let output = child.stdout.take().ok_or_else(|| Error::new("the build's output is not a pipe"))?;

    let (started, mut told, mut steps) = (Instant::now(), Instant::now(), 0_usize);
    let mut last = std::collections::VecDeque::new();
    let ended = process::each_line(output, LIMIT, |line| {
        steps += 1;
        last.push_back(line.to_owned());
        if last.len() > 30 {
            last.pop_front();
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let seconds = started.elapsed().as_secs();
            println!("xtask: kernel: {seconds:4} s, {:2} %: {}", (steps * 100 / STEPS).min(99), line.trim());
        }
    });
    if !ended {
        process::kill(&mut child);
        return Err(Error::timed_out(format!("the kernel's build did not end in {} s", LIMIT.as_secs())));
    }
    let status = child.wait().map_err(|error| Error::new(format!("cannot wait for make: {error}")))?;
    if !status.success() {
        let tail = Vec::from(last).join("\n");
        return Err(Error::new(format!(
            "the kernel did not build ({status}); the end of its output:\n{tail}"
        )));
    }
    println!("xtask: kernel: built in {} s, {steps} steps", started.elapsed().as_secs());
    Ok(())
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command.current_dir(tree);
    reproducible(&mut command);
    command
}

/// The same sources make the same kernel, whoever builds it and when. Cargo's own `make` variables are kept away.
fn reproducible(command: &mut Command) -> &mut Command {
    command
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("KBUILD_BUILD_USER", "firecrest")
        .env("KBUILD_BUILD_HOST", "firecrest")
        .env("LC_ALL", "C")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
}
