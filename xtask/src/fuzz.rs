//! The fuzz targets: built by the stable toolchain with coverage recorded, seeded, and run for a while.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::libtest::Tally;
use crate::{args, cargo, files, packages, process};

const HELP: &str = "\
Builds the fuzz targets with the stable toolchain and runs them, one after another. What a run learns is kept for the
next one; an input that fails is left in fuzz/artifacts.

Usage: cargo xtask fuzz [TARGET] [--seconds N]

  TARGET            one of fuzz/fuzz_targets (all of them)
  --seconds N       how long to run each (60)
";

/// What `cargo fuzz --sanitizer none` would set: LLVM records which code an input reaches and what it compares.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// libFuzzer is C++.
const PACKAGES: &[&str] = &["g++"];

pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    use lexopt::prelude::*;
    let (mut only, mut seconds) = (None, 60);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seconds") => seconds = args::number(&mut parser, "--seconds")?,
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            Value(target) => only = Some(target.to_string_lossy().into_owned()),
            _ => return Err(arg.unexpected().into()),
        }
    }
    let mut tally = Tally::default();
    run(only.as_deref(), seconds, &mut tally)?;
    for failure in &tally.failures {
        println!("xtask: {failure}");
    }
    Ok(u8::from(tally.failed > 0))
}

/// Builds and runs one target, or all of them, and counts each as a test.
pub fn run(only: Option<&str>, seconds: u64, tally: &mut Tally) -> Result<()> {
    let targets = targets(only)?;
    packages::ensure(PACKAGES)?;
    let directory = build_directory();
    println!("xtask: fuzz: building {}", targets.join(", "));
    let seeds = directory.join("seeds");
    process::run(build("run", &directory).args(["--bin", "seeds", "--"]).arg(&seeds).env("RUSTFLAGS", ""))?;
    // By name: the program that makes the seeds does not link with these flags.
    let names = targets.iter().flat_map(|target| ["--bin", target]);
    process::run(build("build", &directory).arg("--release").args(names).env("RUSTFLAGS", RUSTFLAGS))?;

    for target in &targets {
        println!("xtask: fuzz: {target} for {seconds} s");
        if fuzz(target, seconds, &directory)? {
            tally.passed += 1;
        } else {
            tally.fail(format!("fuzz target {target}; the input is in fuzz/artifacts/{target}"));
        }
    }
    Ok(())
}

fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let sources = files::in_directory(&fuzz_directory().join("fuzz_targets"))?;
    let all = sources.iter().filter_map(|source| Some(source.file_stem()?.to_string_lossy().into_owned()));
    let targets: Vec<String> = all.filter(|target| only.is_none_or(|only| only == target)).collect();
    if targets.is_empty() {
        return Err(Error::usage(format!("no fuzz target {}", only.unwrap_or("in fuzz/fuzz_targets"))));
    }
    Ok(targets)
}

/// True when it ran its time without a finding.
fn fuzz(target: &str, seconds: u64, directory: &Path) -> Result<bool> {
    let corpus = directory.join("corpus").join(target);
    let artifacts = fuzz_directory().join("artifacts").join(target);
    for path in [&corpus, &artifacts] {
        fs::create_dir_all(path).map_err(|error| Error::io("create", path, &error))?;
    }
    let mut command = process::dies_with_us(directory.join("x86_64-unknown-linux-gnu/release").join(target));
    // New inputs go to the first directory; the seeds stay as they are.
    command.arg(&corpus).arg(directory.join("seeds").join(target));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={seconds}"));
    command.args([
        "-max_len=8192",
        "-timeout=5",
        "-rss_limit_mb=512",
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    let mut child = process::spawn(command.stdin(Stdio::null()))?;
    let status = process::wait_limited(&mut child, Duration::from_secs(seconds + 120))?;
    Ok(status.is_some_and(|status| status.success()))
}

/// Cargo for the fuzz package, whose flags would make every other package be built again in the common directory.
fn build(subcommand: &str, directory: &Path) -> Command {
    let mut command = cargo::cargo();
    command.args([subcommand, "--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(directory);
    command
}

fn build_directory() -> PathBuf {
    let common = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    cargo::workspace().join(common).join("fuzz")
}

fn fuzz_directory() -> PathBuf {
    cargo::workspace().join("fuzz")
}
