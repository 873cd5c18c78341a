//! Everything a contributor runs, as `cargo xtask COMMAND`.
//!
//! Each command takes care of what it needs: Debian packages (installed when root, named otherwise), guest kernels
//! and the lab, which are built once and kept in a cache.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a developer's tool that reads its own files: it may stop with a panic, and guests never reach it"
)]

mod args;
mod bench;
mod boot_image;
mod cache;
mod cargo;
mod cpio;
mod debian_kernel;
mod demo;
mod error;
mod files;
mod filler;
mod fuzz;
mod guest;
mod kconfig;
mod kernel;
mod lab;
mod libtest;
mod machine;
mod packages;
mod process;
mod profile;
mod programs;
mod rootfs;
mod test;
mod transcript;

use std::process::ExitCode;

use error::{Error, Result};

const HELP: &str = "\
Everything a contributor to Firecrest runs.

Usage: cargo xtask COMMAND [OPTION...]

  demo      boot Debian's stock kernel in a microVM to a shell, type into it, power it off
  test      run every test: without KVM, tiny guests, Linux guests, a short fuzz
  lab       run a program as root under real KVM in an emulated machine
  kernel    build the guest kernel (vmlinux and bzImage)
  guest     build the guest's file systems, fetch or build the kernels, print their paths
  fuzz      build and run the fuzz targets
  bench     measure start-up, boot, memory, I/O, density and idling, beside peers
  profile   tell where the instructions of a boot go, by function

`cargo xtask COMMAND --help` says more. Guest kernels and other slow results are kept in $FIRECREST_CACHE, or else in
${XDG_CACHE_HOME:-~/.cache}/firecrest. Debian packages that are missing are installed when root, named otherwise.
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch() -> Result<u8> {
    let mut parser = lexopt::Parser::from_env();
    // Cargo's alias ends in `--`, which is not an end of options here: the command follows.
    let command = match parser.next()? {
        Some(lexopt::Arg::Value(command)) => command.to_string_lossy().into_owned(),
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) | None => {
            print!("{HELP}");
            return Ok(0);
        }
        Some(other) => return Err(Error::usage(other.unexpected().to_string())),
    };
    match command.as_str() {
        "demo" => demo::command(parser),
        "test" => test::command(parser),
        "lab" => lab::command(parser),
        "kernel" => kernel::command(parser),
        "guest" => guest::command(parser),
        "fuzz" => fuzz::command(parser),
        "bench" => bench::command(parser),
        "profile" => profile::command(parser),
        "help" => {
            print!("{HELP}");
            Ok(0)
        }
        unknown => Err(Error::usage(format!("no command `{unknown}`; `cargo xtask --help` lists them"))),
    }
}
