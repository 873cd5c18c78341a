//! Tests in the lab: one process for each, and another lab where one freezes.
//!
//! QEMU's emulation of SVM freezes its machine now and then, whatever runs in it: no timer of the lab's own kernel
//! fires any more. That is no result of a test. The tests that were not done run again in a new lab, and the freeze is
//! told; a test during which the lab freezes twice has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LAB_LIMIT, LAB_MEMORY_MIB, Tests, blame, take_in};
use crate::cache::Scratch;
use crate::error::{Error, Result};
use crate::lab::{End, Lab};
use crate::libtest::Tally;
use crate::{packages, process};

/// The script says it before a test, and after it, followed by the test's number.
const BEGIN: &str = "xtask: begin ";
const DONE: &str = "xtask: done ";

/// What device tests use on the guest's host and busybox does not have, or does less well.
const PROGRAMS: [&str; 4] = ["debugfs", "e2fsck", "ip", "iperf3"];

/// Labs that may freeze before it is given up.
const MOST_FREEZES: usize = 6;
/// And during one and the same test, which is then a failure: a long one meets QEMU's own freezes more often than others.
const MOST_FREEZES_OF_A_TEST: usize = 3;

/// A test, and the program it is in.
struct Test {
    program: PathBuf,
    name: String,
}

/// Runs all tests, and counts. With `icount` the lab has its deterministic clock.
pub fn run(
    tests: &Tests,
    args: &[&str],
    env: &[(&str, PathBuf)],
    icount: bool,
    tally: &mut Tally,
) -> Result<()> {
    packages::ensure(packages::DEVICE_TESTS)?;
    let list = list(tests)?;
    let mut left: BTreeSet<_> = (0..list.len()).collect();
    let mut suspects: BTreeMap<usize, usize> = BTreeMap::new();
    for freezes in 0..=MOST_FREEZES {
        println!("xtask: starting the lab for {} tests", left.len());
        let mut current = None;
        let frozen = in_one_lab(tests, &list, (args, env, icount), &mut left, &mut current, tally)?;
        if !frozen {
            return Ok(());
        }
        println!("xtask: the lab froze (freeze {}); what is left runs in another", freezes + 1);
        if let Some(test) = current {
            let times = suspects.entry(test).or_default();
            *times += 1;
            if *times == MOST_FREEZES_OF_A_TEST {
                left.remove(&test);
                tally.fail(format!("{}: the lab froze during it, {times} times", list[test].name));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(Error::new(format!("the lab froze {} times; {} tests were not done", MOST_FREEZES + 1, left.len())))
}

/// Runs what is left in one lab; true where it froze.
fn in_one_lab(
    tests: &Tests,
    list: &[Test],
    (args, env, icount): (&[&str], &[(&str, PathBuf)], bool),
    left: &mut BTreeSet<usize>,
    current: &mut Option<usize>,
    tally: &mut Tally,
) -> Result<bool> {
    let scratch = Scratch::new("test")?;
    let script = scratch.path().join("tests.sh");
    let mut lab = Lab::new(&script);
    lab.memory_mib = LAB_MEMORY_MIB;
    lab.timeout = LAB_LIMIT;
    (lab.icount, lab.xsave) = (icount, icount);
    for (name, path) in env {
        let there = lab.bring(path);
        lab.env.push(((*name).to_owned(), there));
    }
    for program in PROGRAMS {
        lab.bring_program(program)?;
    }
    let firecrest = lab.bring(&tests.firecrest);
    lab.env.push(("FIRECREST_BIN".to_owned(), firecrest));
    for program in &tests.programs {
        lab.bring(&program.path);
    }
    process::write_script(&script, &text(list, left, args))?;

    let failed_before = tally.failed;
    let mut running = lab.start()?;
    let stdout = running.stdout.take().ok_or_else(|| Error::new("the lab's output is not a pipe"))?;
    let limit = running.remaining();
    process::each_line_while(
        stdout,
        limit,
        || !running.is_frozen(),
        |line| {
            let number = |mark| line.split_once(mark).and_then(|(_, number)| number.trim().parse().ok());
            if let Some(test) = number(BEGIN) {
                *current = Some(test);
            } else if let Some(test) = number(DONE) {
                *current = None;
                left.remove(&test);
            } else if !is_noise(line) {
                take_in(line, tally);
            }
        },
    );
    match running.end()? {
        End::Frozen => Ok(true),
        End::Code(code) => {
            blame(code, failed_before, "a test program in the lab", tally);
            Ok(false)
        }
    }
}

fn text(list: &[Test], left: &BTreeSet<usize>, args: &[&str]) -> String {
    let mut text = String::from("#!/bin/sh\ncode=0\n");
    for number in left {
        let Test { program, name } = &list[*number];
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        text += &format!(
            "echo '{BEGIN}{number}'\n/lab/{program} --exact {name} {} || code=$?\necho '{DONE}{number}'\n",
            args.join(" ")
        );
    }
    text + "exit $code\n"
}

/// What the harness says around a single test.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line == "running 1 test"
}

fn list(tests: &Tests) -> Result<Vec<Test>> {
    let mut list = Vec::new();
    for program in &tests.programs {
        for name in names(&program.path, &tests.words)? {
            list.push(Test { program: program.path.clone(), name });
        }
    }
    Ok(list)
}

/// The names of a program's tests that contain one of the words.
fn names(program: &Path, words: &[String]) -> Result<Vec<String>> {
    let output = process::output(Command::new(program).args(["--list", "--format", "terse"]).args(words))?;
    Ok(output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}
