//! From a role's list to the program that the kernel runs at each system call of the thread.
//!
//! The rules are compiled by `seccompiler`, which checks the architecture first. Refusals, of which it knows
//! nothing, are put in front: number by number, so that what is refused needs no rule and a rule cannot let
//! it through. (A call of another architecture whose number is that of a refused one is refused as well.)

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
    let mut calls: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let alternatives = calls.entry(rule.call.number).or_default();
        let conditions = rule.when.iter().map(|arg| condition(*arg, facts)).collect::<Result<Vec<_>, _>>()?;
        if !conditions.is_empty() {
            alternatives.push(SeccompRule::new(conditions)?);
        }
    }
    let filter = SeccompFilter::new(calls, action, SeccompAction::Allow, ARCH)?;
    let refusals = REFUSALS.iter().chain(backtraces(facts));
    let mut program: BpfProgram = refusals_first(refusals, facts.refuses).collect();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

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

/// `load number; (if it is N, return the error)...`
fn refusals_first<'a>(
    refusals: impl Iterator<Item = &'a Refusal>,
    refuses: bool,
) -> impl Iterator<Item = sock_filter> {
    // `struct seccomp_data` begins with the call's number.
    let load = sock_filter { code: code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), jt: 0, jf: 0, k: 0 };
    let each = refusals.flat_map(move |refusal| {
        let answer = if refuses {
            libc::SECCOMP_RET_ERRNO | refusal.errno.cast_unsigned()
        } else {
            libc::SECCOMP_RET_ALLOW
        };
        let number = u32::try_from(refusal.call.number).unwrap_or(u32::MAX);
        [
            sock_filter { code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), jt: 0, jf: 1, k: number },
            sock_filter { code: code(libc::BPF_RET | libc::BPF_K), jt: 0, jf: 0, k: answer },
        ]
    });
    iter::once(load).chain(each)
}

/// An instruction's code: libc has wider numbers than the field.
#[allow(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
const fn code(parts: u32) -> u16 {
    parts as u16
}
