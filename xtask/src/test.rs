//! `cargo xtask test`: every test, each where this machine can run it, and what became of them.

mod in_lab;
mod summary;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use self::summary::Summary;
use crate::cargo::Executable;
use crate::error::{Error, Result};
use crate::libtest::Tally;
use crate::machine::{Kvm, Place};
use crate::{args, boot_image, cargo, debian_kernel, files, fuzz, guest, kernel, packages, process, rootfs};

const HELP: &str = "\
Runs every test and says what became of them; the last line is `N passed, N failed, N skipped`.

Usage: cargo xtask test [--level N]... [--test NAME]... [--skip-fuzz] [--fuzz-seconds N] [WORD...]

  level 1    unit and documentation tests; nothing of it needs KVM
  level 2    tests/*.rs with tiny guests: on this machine's KVM, or in the lab where /dev/kvm does not open
  level 3    tests/linux*.rs, with Linux guests: on this machine's KVM where the CPU has svm or vmx, else in the lab;
             tests/linux_budget.rs always in the lab, where instructions can be counted
  fuzz       each fuzz target for --fuzz-seconds (60)

  --level N         only this level, and no fuzz (repeatable)
  --test NAME       of levels 2 and 3 only tests/NAME.rs, and no level 1 and no fuzz (repeatable)
  --skip-fuzz       no fuzz
  WORD...           of levels 2 and 3 only tests whose names contain one of these

Tests find what they need in the environment: FIRECREST_BIN (the program), and on level 3 FIRECREST_GUEST_VMLINUX,
FIRECREST_GUEST_BZIMAGE, FIRECREST_GUEST_DEBIAN (Debian's stock kernel), FIRECREST_GUEST_INITRD and
FIRECREST_GUEST_ROOTFS. A test that cannot run prints a line `SKIPPED reason` and returns; it is counted as skipped.
Two more may be set: FIRECREST_ALL_SECONDS (60), for how long all devices work at once, and FIRECREST_LARGE_MIB (64),
what goes through one vsock stream.

The first run builds the guest kernel and takes some minutes more.
";

/// How long the tests of a level may run, building not included.
const HOST_LIMIT: Duration = Duration::from_secs(900);
const LAB_LIMIT: Duration = Duration::from_secs(1500);
/// Cargo's own runs include building.
const CARGO_LIMIT: Duration = Duration::from_secs(1800);
const LAB_MEMORY_MIB: u32 = 6144;

pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    use lexopt::prelude::*;
    let (mut levels, mut with_fuzz, mut fuzz_seconds) = (Vec::new(), true, 60);
    let mut selection = Selection::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("level") => match args::number(&mut parser, "--level")? {
                level @ 1..=3_u8 => levels.push(level),
                _ => return Err(Error::usage("--level: there are levels 1, 2 and 3")),
            },
            Long("test") => selection.programs.push(parser.value()?.to_string_lossy().into_owned()),
            Value(arg) => selection.words.push(arg.to_string_lossy().into_owned()),
            Long("skip-fuzz") => with_fuzz = false,
            Long("fuzz-seconds") => fuzz_seconds = args::number(&mut parser, "--fuzz-seconds")?,
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    let wanted = |level| levels.contains(&level) || levels.is_empty() && selection.concerns(level);
    let kvm = Kvm::of_this_machine();
    let mut summary = Summary::default();
    if wanted(1) {
        summary.run("level 1, no KVM", unit_tests);
    }
    if wanted(2) {
        let place = kvm.for_tiny_guests();
        summary.run(&format!("level 2, tiny guests {place}"), |tally| tiny_guests(place, &selection, tally));
    }
    if wanted(3) {
        let place = kvm.for_linux_guests();
        summary
            .run(&format!("level 3, Linux guests {place}"), |tally| linux_guests(place, &selection, tally));
    }
    if with_fuzz && selection.all() && levels.is_empty() {
        summary
            .run(&format!("fuzz, {fuzz_seconds} s a target"), |tally| fuzz::run(None, fuzz_seconds, tally));
    }
    Ok(summary.print())
}

/// The root package's integration tests are the other levels; the libraries' own need nothing and belong here.
fn unit_tests(tally: &mut Tally) -> Result<()> {
    let runs: [&[&str]; 2] = [
        &[
            "--workspace",
            "--exclude",
            "firecrest",
            "--exclude",
            "firecrest-micro",
            "--lib",
            "--bins",
            "--tests",
        ],
        &["--workspace", "--exclude", "firecrest-micro", "--doc"],
    ];
    // Nothing here has to be installed: where it cannot be, the one test that would use it says that it skipped.
    if packages::has_apt() && packages::is_root()? {
        packages::ensure(packages::ACPI)?;
    }
    for args in runs {
        let mut command = cargo::cargo();
        command.args(["test", "--no-fail-fast"]).args(args).args(["--", "--show-output"]);
        watch(&mut command, CARGO_LIMIT, tally)?;
    }
    Ok(())
}

/// What of levels 2 and 3 to run.
#[derive(Default)]
struct Selection {
    /// Test programs; all of them where there is none.
    programs: Vec<String>,
    /// What a test's name has to contain one of; anything will do where there is none.
    words: Vec<String>,
}

impl Selection {
    fn concerns(&self, level: u8) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|name| level_of(name) == level)
    }

    /// The test programs of a level, built.
    fn build(&self, level: u8) -> Result<Tests> {
        let wanted = |name: &String| level_of(name) == level && (self.all() || self.programs.contains(name));
        Ok(Tests { words: self.words.clone(), ..build(wanted)? })
    }

    fn all(&self) -> bool {
        self.programs.is_empty()
    }
}

/// The level of a test program.
fn level_of(name: &str) -> u8 {
    if name.starts_with("linux") { 3 } else { 2 }
}

/// Those that count instructions run in the lab with its deterministic clock, on every machine.
fn is_counted(name: &str) -> bool {
    name == "linux_budget"
}

fn tiny_guests(place: Place, selection: &Selection, tally: &mut Tally) -> Result<()> {
    let tests = selection.build(2)?;
    // The harness shows what a test printed only after it, in whole lines.
    match place {
        Place::Host => tests.on_host(&["--show-output"], &[], tally),
        Place::Lab => in_lab::run(&tests, &["--show-output"], &[], false, tally),
    }
}

fn linux_guests(place: Place, selection: &Selection, tally: &mut Tally) -> Result<()> {
    let mut tests = selection.build(3)?;
    let budgets = tests.split_off(is_counted);
    let kernel = kernel::ensure()?;
    let guests = [
        ("FIRECREST_GUEST_VMLINUX", kernel.vmlinux),
        ("FIRECREST_GUEST_BZIMAGE", kernel.bzimage),
        ("FIRECREST_GUEST_DEBIAN", debian_kernel::ensure()?.vmlinuz),
        ("FIRECREST_GUEST_INITRD", guest::ensure()?),
        ("FIRECREST_GUEST_ROOTFS", rootfs::ensure()?),
        ("FIRECREST_BOOT_INITRD", boot_image::ensure()?),
        ("FIRECREST_BOOT_MEASURE", cargo::workspace().join(boot_image::MEASURE)),
    ];
    let args = ["--test-threads=1", "--nocapture"];
    if !budgets.programs.is_empty() {
        in_lab::run(&budgets, &args, &guests, true, tally)?;
    }
    match place {
        _ if tests.programs.is_empty() => Ok(()),
        Place::Host => {
            packages::ensure(packages::DEVICE_TESTS)?;
            tests.on_host(&args, &guests, tally)
        }
        Place::Lab => in_lab::run(&tests, &args, &guests, false, tally),
    }
}

/// Test programs, and the program they test.
struct Tests {
    programs: Vec<Executable>,
    firecrest: PathBuf,
    /// See [`Selection`].
    words: Vec<String>,
}

/// Builds those of the root package's integration tests whose names are wanted.
fn build(wanted: impl Fn(&String) -> bool) -> Result<Tests> {
    let sources = files::in_directory(&cargo::workspace().join("tests"))?;
    let sources = sources.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names: Vec<String> = sources
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .filter(&wanted)
        .collect();
    if names.is_empty() {
        return Err(Error::new("there are no such tests in tests/"));
    }
    println!("xtask: building {}", names.join(", "));
    let mut args = vec!["test", "--no-run", "--package", "firecrest"];
    args.extend(names.iter().flat_map(|name| ["--test", name]));
    let built = cargo::executables(&args)?;
    // As a user has it: budgets are of the release build.
    let firecrest = cargo::release_program()?;
    let programs = built.into_iter().filter(|executable| names.contains(&executable.target)).collect();
    Ok(Tests { programs, firecrest, words: Vec::new() })
}

impl Tests {
    /// Takes those programs out whose names are wanted.
    fn split_off(&mut self, wanted: impl Fn(&str) -> bool) -> Self {
        let programs = std::mem::take(&mut self.programs);
        let (taken, left) = programs.into_iter().partition(|program| wanted(&program.target));
        self.programs = left;
        Self { programs: taken, firecrest: self.firecrest.clone(), words: self.words.clone() }
    }

    fn on_host(&self, args: &[&str], env: &[(&str, PathBuf)], tally: &mut Tally) -> Result<()> {
        for program in &self.programs {
            println!("xtask: {}", program.target);
            let mut command = process::dies_with_us(&program.path);
            command.args(args).args(&self.words).current_dir(cargo::workspace());
            command.env("FIRECREST_BIN", &self.firecrest);
            command.envs(env.iter().map(|(name, path)| (name, path)));
            watch(&mut command, HOST_LIMIT, tally)?;
        }
        Ok(())
    }
}

/// Runs a command whose output is the test harness's, and counts.
fn watch(command: &mut Command, limit: Duration, tally: &mut Tally) -> Result<()> {
    let failed_before = tally.failed;
    let mut child = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = child.stdout.take().ok_or_else(|| Error::new("the tests' output is not a pipe"))?;
    let line = process::line(command);
    if !process::each_line(stdout, limit, |line| take_in(line, tally)) {
        process::kill(&mut child);
        return Err(Error::timed_out(format!("`{line}` did not end within {} s", limit.as_secs())));
    }
    let status = child.wait().map_err(|error| Error::new(format!("cannot wait for `{line}`: {error}")))?;
    blame(process::shell_code(status), failed_before, &format!("`{line}`"), tally);
    Ok(())
}

fn take_in(line: &str, tally: &mut Tally) {
    println!("{line}");
    tally.line(line);
}

/// A program that ended badly without naming a failed test has failed as a whole: it crashed, or did not build.
fn blame(code: u8, failed_before: usize, what: &str, tally: &mut Tally) {
    if code != 0 && tally.failed == failed_before {
        tally.fail(format!("{what} ended with exit code {code}"));
    }
}
