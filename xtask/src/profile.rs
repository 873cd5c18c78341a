//! Where the instructions of a boot go, by function: of the guest's kernel, of the lab's, which is the host here, and of
//! programs. QEMU counts them (`benches/boot/functions.c`); nothing is sampled.
//!
//! What is told is the difference between a lab that boots the guest three times and one that boots it twice: neither the
//! lab's own start nor a first boot is in it. It goes to the end of the run, some million instructions behind PID 1.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cache::Scratch;
use crate::error::{Error, Result};
use crate::lab::{Lab, Plugin};
use crate::{args, boot_image, cargo, kernel, process};

const HELP: &str = "\
Tells where the instructions of a quiet boot go, by function: guest kernel, host kernel, programs. 30 seconds.

Usage: cargo xtask profile [--top N]

  --top N    functions of each kernel (40)
";

const PLUGIN: &str = "benches/boot/functions.c";
/// Kernels have no other code above this.
const KERNELS: u64 = 0xffff_ffff_8000_0000;
/// Where the host's kernel has its modules.
const MODULES: u64 = 0xffff_ffff_c000_0000;
const LIMIT: Duration = Duration::from_secs(300);

/// Functions by address.
type Symbols = BTreeMap<u64, String>;

/// Instructions, by whose they are and in which function.
type Counts = BTreeMap<(&'static str, String), i64>;

pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    let mut top = 40;
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("top") => top = args::number(&mut parser, "--top")?,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    let scratch = Scratch::new("profile")?;
    let library = scratch.path().join("functions.so");
    let source = cargo::workspace().join(PLUGIN);
    process::run(Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source))?;
    let vmlinux = kernel::ensure()?.vmlinux;
    let guest = symbols(&process::output(Command::new("nm").arg(&vmlinux))?);
    let boots = |times| boot(times, &library, &vmlinux, scratch.path());
    let (before, host) = boots(2)?;
    let (after, _) = boots(3)?;
    let mut counts = functions(&after, &guest, &host);
    for (function, count) in functions(&before, &guest, &host) {
        *counts.entry(function).or_default() -= count;
    }
    tell(&counts, top);
    Ok(0)
}

/// Boots the guest so often in one lab; what the plugin has counted, and the symbols of the lab's kernel.
fn boot(times: usize, library: &Path, vmlinux: &Path, work: &Path) -> Result<(String, Symbols)> {
    let script = work.join("boots.sh");
    let mut lab = Lab::new(&script);
    (lab.icount, lab.xsave, lab.timeout) = (true, true, LIMIT);
    let (program, initrd) = (lab.bring(&cargo::release_program()?), lab.bring(&boot_image::ensure()?));
    let kernel = lab.bring(vmlinux);
    let boot = format!(
        "{program} run --kernel {kernel} --initrd {initrd} --cmdline '{}' >/dev/null 2>&1\n",
        boot_image::QUIET
    );
    process::write_script(&script, &format!("#!/bin/sh\n{}cat /proc/kallsyms\n", boot.repeat(times)))?;
    let counted = work.join("counted");
    lab.plugin = Some(Plugin { library: library.to_owned(), out: counted.clone() });
    println!("xtask: profile: {times} boots in the lab");
    let mut listed = String::new();
    let code = lab.run_lines(|line| {
        listed += line;
        listed.push('\n');
    })?;
    if code != 0 {
        return Err(Error::new(format!("the boots ended with exit code {code}")));
    }
    let counts = fs::read_to_string(&counted).map_err(|error| Error::io("read", &counted, &error))?;
    Ok((counts, symbols(&listed)))
}

/// Of a list as `nm` and `/proc/kallsyms` give it.
fn symbols(list: &str) -> Symbols {
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let is_code = "tTwW".contains(words.next()?);
        (is_code && address >= KERNELS).then_some((address, words.next()?.to_owned()))
    };
    list.lines().filter_map(symbol).collect()
}

/// Both kernels are at the same virtual addresses. The host's is one piece in the machine's memory, nearly all of what was
/// executed at first: so the distance that most blocks have from their virtual address is its.
fn functions(counted: &str, guest: &Symbols, host: &Symbols) -> Counts {
    let blocks: Vec<(u64, u64, i64)> = counted
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let mut address = || u64::from_str_radix(words.next()?, 16).ok();
            let (place, at) = (address()?, address()?);
            let mut number = || words.next()?.parse::<i64>().ok();
            Some((place, at, number()? * number()?))
        })
        .collect();
    let mut distances: BTreeMap<u64, i64> = BTreeMap::new();
    for (address, place, count) in blocks.iter().filter(|(address, ..)| (KERNELS..MODULES).contains(address))
    {
        *distances.entry(place.wrapping_sub(*address)).or_default() += count;
    }
    let hosts = distances.into_iter().max_by_key(|(_, count)| *count).map(|(distance, _)| distance);
    let mut counts = Counts::new();
    for (address, place, count) in blocks {
        let is_hosts = address >= MODULES || Some(place.wrapping_sub(address)) == hosts;
        let (whose, symbols) = match address {
            ..KERNELS => ("programs, firmware, early code", None),
            _ if is_hosts => ("host kernel", Some(host)),
            _ => ("guest kernel", Some(guest)),
        };
        let name = symbols.and_then(|symbols| symbols.range(..=address).next_back());
        let name = name.map_or_else(|| "(all)".to_owned(), |(_, name)| name.clone());
        *counts.entry((whose, name)).or_default() += count;
    }
    counts
}

fn tell(counts: &Counts, top: usize) {
    let mut owners: BTreeMap<&str, Vec<(&str, i64)>> = BTreeMap::new();
    for ((whose, name), count) in counts {
        owners.entry(whose).or_default().push((name, *count));
    }
    let total: i64 = counts.values().sum();
    println!("{total:>12}  one boot, to the end of the run");
    for (whose, mut functions) in owners {
        let sum: i64 = functions.iter().map(|(_, count)| count).sum();
        println!("\n{sum:>12}  {:4.1} %  {whose}", percent(sum, total));
        functions.sort_unstable_by_key(|(_, count)| -count);
        for (name, count) in functions.iter().take(if functions.len() == 1 { 0 } else { top }) {
            println!("{count:>12}  {:4.1} %    {name}", percent(*count, total));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn percent(part: i64, whole: i64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_belong_to_the_function_before_them() {
        let host =
            symbols("ffffffff81000000 T start\nffffffff81000100 t work\nffffffffc0000000 t run\t[kvm]\n");
        let guest = symbols("ffffffff81000000 T begin\nffffffff81000200 D data\n0000000000000000 A none\n");
        let counted = "ffffffff81000104 7f0001000104 5 100\nffffffff81000000 7f0001000000 1 3\n\
                       ffffffff81000108 7f0055000108 2 4\nffffffffc0000010 7f0002000010 1 7\n401000 7f0003000000 6 1\n";
        let counts = functions(counted, &guest, &host);
        let expected = [
            (("guest kernel", "begin"), 8),
            (("host kernel", "run"), 7),
            (("host kernel", "start"), 3),
            (("host kernel", "work"), 500),
            (("programs, firmware, early code", "(all)"), 6),
        ];
        let expected = expected.map(|((whose, name), count)| ((whose, name.to_owned()), count));
        assert_eq!(counts, Counts::from(expected));
    }
}
