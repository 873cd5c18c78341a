//! From a role's list to the program that the kernel runs at each system call of the thread.
//!
//! ```text
//! another architecture?  ->  killed
//! number: a search by halves, down to one entry
//!     a rule     ->  let through, or, where it has conditions, what `seccompiler` makes of them
//!     a refusal  ->  the error
//!     no entry   ->  what the jail says
//! ```
//!
//! The search is for the kernel's sake: when a filter goes on, it runs the program for every number there is, to know
//! which calls are let through whatever their arguments. With one comparison after another, as `seccompiler` has it for
//! a whole list, that is most of what putting a filter on costs, and a vCPU waits for it.

use std::collections::BTreeMap;
use std::iter;
use std::os::fd::RawFd;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::role::{BACKTRACE_REFUSALS, REFUSALS};
use crate::rule::{Arg, Refusal, Rule, Value};

/// What the lists do not know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The descriptor that vCPUs take their kicks from.
    pub(crate) kicks: RawFd,
    /// Refusals are refused; otherwise the calls are made.
    pub(crate) refuses: bool,
}

/// The program for threads that lets these rules through, and end as `action` says on what else
/// they call.
pub(crate) fn compile<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    action: SeccompAction,
    facts: Facts,
) -> seccompiler::Result<BpfProgram> {
    let mut calls: BTreeMap<libc::c_long, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        calls.entry(rule.call.number).or_default().push(rule);
    }
    // By number: what happens to the call.
    let mut entries: BTreeMap<u32, BpfProgram> = BTreeMap::new();
    for (number, rules) in calls {
        entries.insert(by_kernel(number), entry(number, &rules, &action, facts)?);
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
    program.extend(search(&entries, u32::from(action)));
    Ok(program)
}

/// What happens to the call of this number, which has these rules.
fn entry(
    number: libc::c_long,
    rules: &[&Rule],
    action: &SeccompAction,
    facts: Facts,
) -> seccompiler::Result<BpfProgram> {
    if rules.iter().any(|rule| rule.when.is_empty()) {
        return Ok(vec![statement(RETURN, libc::SECCOMP_RET_ALLOW)]);
    }
    let alternatives = rules.iter().map(|rule| {
        let conditions = rule.when.iter().map(|arg| condition(*arg, facts)).collect::<Result<Vec<_>, _>>()?;
        SeccompRule::new(conditions)
    });
    let alternatives = alternatives.collect::<Result<Vec<_>, _>>()?;
    let calls = iter::once((number, alternatives)).collect();
    let filter = SeccompFilter::new(calls, action.clone(), SeccompAction::Allow, ARCH)?;
    Ok(BpfProgram::try_from(filter)?)
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

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
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

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;
/// The same as the kernel's audit names it: ELF's number for the machine, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

fn condition(arg: Arg, facts: Facts) -> Result<SeccompCondition, seccompiler::BackendError> {
    let value = match arg.value {
        Value::Number(number) => number,
        Value::Kicks => facts.kicks.cast_unsigned(),
    };
    let compare = match arg.mask {
        u32::MAX => SeccompCmpOp::Eq,
        mask => SeccompCmpOp::MaskedEq(mask.into()),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, compare, value.into())
}

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
