//! From a role's list to the program that the kernel runs at each system call of the thread.
//!
//! ```text
//! another architecture?  ->  killed
//! number: a search by halves, down to one entry
//!     rules      ->  let through where all conditions of one of them hold
//!     a refusal  ->  the error
//!     no entry   ->  what the jail says
//! ```
//!
//! The program is searched and short for the kernel's sake: when a filter goes on, it checks and translates it, and runs it for
//! every number there is, to know which calls are let through whatever their arguments; and a vCPU waits for that.
//! `seccompiler`, which puts filters on, makes one comparison after another of a list, and twice as many statements.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use seccompiler::{BpfProgram, sock_filter};

use crate::role::{BACKTRACE_REFUSALS, REFUSALS};
use crate::rule::{Refusal, Rule, Value};

/// What the lists do not know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The descriptor that vCPUs take their kicks from.
    pub(crate) kicks: RawFd,
    /// Refusals are refused; otherwise the calls are made.
    pub(crate) refuses: bool,
}

/// The program for threads that lets these rules through, and answers `otherwise` (a `SECCOMP_RET` of the kernel's) to what
/// else they call.
pub(crate) fn compile<'a>(rules: impl Iterator<Item = &'a Rule>, otherwise: u32, facts: Facts) -> BpfProgram {
    let mut calls: BTreeMap<libc::c_long, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        calls.entry(rule.call.number).or_default().push(rule);
    }
    // By number: what happens to the call.
    let mut entries: BTreeMap<u32, BpfProgram> = BTreeMap::new();
    for (number, rules) in calls {
        entries.insert(by_kernel(number), rules.iter().flat_map(|rule| alternative(rule, facts)).collect());
    }
    for refusal in REFUSALS.iter().chain(backtraces(facts)) {
        let answer = if facts.refuses {
            libc::SECCOMP_RET_ERRNO | refusal.errno.cast_unsigned()
        } else {
            libc::SECCOMP_RET_ALLOW
        };
        entries.insert(by_kernel(refusal.call.number), vec![statement(RETURN, answer)]);
    }
    let entries: Vec<_> = entries.into_iter().collect();
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, NUMBER),
    ];
    program.extend(search(&entries, otherwise));
    program
}

/// Lets the call through where all conditions of the rule hold; goes on behind otherwise.
fn alternative(rule: &Rule, facts: Facts) -> BpfProgram {
    let mut program = vec![statement(RETURN, libc::SECCOMP_RET_ALLOW)];
    for arg in rule.when.iter().rev() {
        let value = match arg.value {
            Value::Number(number) => number,
            Value::Kicks => facts.kicks.cast_unsigned(),
        };
        let mut tested = vec![statement(LOAD, low_half(arg.index))];
        if arg.mask != u32::MAX {
            tested.push(statement(AND, arg.mask));
        }
        tested.extend(branch(EQUAL, value, false, program.len()));
        tested.append(&mut program);
        program = tested;
    }
    program
}

/// With the number loaded: to the entry of that number, or to `otherwise`.
fn search(entries: &[(u32, BpfProgram)], otherwise: u32) -> BpfProgram {
    match entries {
        [] => vec![statement(RETURN, otherwise)],
        [(number, program)] => {
            let mut found = branch(EQUAL, *number, false, program.len());
            found.extend_from_slice(program);
            found.push(statement(RETURN, otherwise));
            found
        }
        [..] => {
            let (lower, upper) = entries.split_at(entries.len() / 2);
            let first = upper.first().map_or(u32::MAX, |(number, _)| *number);
            let (lower, upper) = (search(lower, otherwise), search(upper, otherwise));
            let mut halves = branch(AT_LEAST, first, true, lower.len());
            halves.extend(lower);
            halves.extend(upper);
            halves
        }
    }
}

/// Goes on behind the next `over` statements if the comparison with `k` comes out as `when` says.
fn branch(comparison: u16, k: u32, when: bool, over: usize) -> BpfProgram {
    match u8::try_from(over) {
        Ok(near) if when => vec![jump(comparison, k, near, 0)],
        Ok(near) => vec![jump(comparison, k, 0, near)],
        // What is too far for the field takes a step more.
        Err(_) => vec![
            jump(comparison, k, u8::from(!when), u8::from(when)),
            statement(ALWAYS, u32::try_from(over).unwrap_or(u32::MAX)),
        ],
    }
}

/// A call's number as the kernel has it.
fn by_kernel(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The low half of an argument, on a little-endian machine.
fn low_half(argument: u8) -> u32 {
    u32::from(argument).wrapping_mul(8).wrapping_add(ARGUMENTS)
}

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const AND: u16 = code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const ALWAYS: u16 = code(libc::BPF_JMP | libc::BPF_JA);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The architecture as the kernel's audit names it: ELF's number for the machine, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// What is refused besides, where the environment has every panic of the process print a backtrace. It is read
/// here as the standard library reads it.
fn backtraces(facts: Facts) -> impl Iterator<Item = &'static Refusal> {
    let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    BACKTRACE_REFUSALS.iter().filter(move |_| wanted && facts.refuses)
}

/// An instruction's code: libc has wider numbers than the field.
#[allow(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
const fn code(parts: u32) -> u16 {
    parts as u16
}

#[cfg(test)]
#[path = "compile_tests.rs"]
pub(crate) mod tests;
