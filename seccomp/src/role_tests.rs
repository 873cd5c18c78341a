#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::Jail;
use crate::compile::tests::{answer, lets_through};
use std::collections::{BTreeMap, BTreeSet};

fn calls(role: Role) -> BTreeSet<&'static str> {
    role.rules().map(|rule| rule.call.name).collect()
}

/// What SPECIFICATION.md promises.
#[test]
fn the_lists_are_as_short_as_promised() {
    let counts = BTreeMap::from([
        (Role::Vcpu, 9),
        (Role::Block, 12),
        (Role::BlockUring, 12),
        (Role::Net, 12),
        (Role::VsockStreams, 12),
        (Role::VsockBroker, 12),
        (Role::Console, 9),
    ]);
    for role in Role::ALL {
        let calls = calls(role);
        assert_eq!(calls.len(), counts[&role], "{role}: {calls:?}");
    }
    let all: BTreeSet<_> = Role::ALL.into_iter().flat_map(calls).collect();
    assert_eq!(all.len(), 20, "{all:?}");
    // What the broker alone has: it never touches the guest's memory.
    let others = Role::ALL.into_iter().filter(|role| *role != Role::VsockBroker);
    let others: BTreeSet<_> = others.flat_map(calls).collect();
    let brokers: Vec<_> = all.difference(&others).collect();
    assert_eq!(brokers, [&"accept4", &"close", &"connect", &"socket"]);
}

/// What is promised is what the kernel is given: the compiled programs compare with these numbers, and no others.
#[test]
fn the_compiled_lists_let_through_what_the_lists_name() {
    for role in Role::ALL {
        let filter = Jail::enforce().filter(role, 7).unwrap();
        let named: BTreeSet<_> = role.rules().map(|rule| rule.call.number).collect();
        let program = filter.program().unwrap();
        let let_through: BTreeSet<_> = (0..1024).filter(|number| lets_through(program, *number)).collect();
        assert_eq!(let_through, named, "{role}");
    }
}

const KICKS: u32 = 7;

/// An argument of which the condition holds, or not; what it does not look at is set.
fn argument(arg: &Arg, holds: bool) -> u64 {
    let value = match arg.value {
        Value::Number(number) => number,
        Value::Kicks => KICKS,
    };
    let value = if holds { value } else { value ^ 1 << arg.mask.ilog2() };
    u64::from(value | !arg.mask) | 0xffff_ffff << 32
}

#[test]
fn each_condition_is_looked_at_and_nothing_else() {
    for role in Role::ALL {
        let filter = Jail::enforce().filter(role, KICKS.cast_signed()).unwrap();
        let program = filter.program().unwrap();
        for rule in role.rules() {
            let arguments = |but: Option<&Arg>| {
                let mut arguments = [u64::MAX; 6];
                for arg in rule.when {
                    arguments[usize::from(arg.index)] = argument(arg, Some(arg) != but);
                }
                arguments
            };
            let answer = |but| answer(program, rule.call.number, arguments(but));
            assert_eq!(answer(None), libc::SECCOMP_RET_ALLOW, "{role}: {}", rule.call);
            // One bit off is not what any alternative wants either: their numbers differ by more.
            for arg in rule.when {
                assert_eq!(
                    answer(Some(arg)),
                    libc::SECCOMP_RET_KILL_PROCESS,
                    "{role}: {} {arg:?}",
                    rule.call
                );
            }
        }
    }
}

/// The page says what the lists say.
#[test]
fn the_specification_names_what_each_role_calls() {
    let page = include_str!("../../SPECIFICATION.md");
    for role in Role::ALL {
        let calls: Vec<_> = calls(role).into_iter().map(|call| format!("`{call}`")).collect();
        let row = format!("| {role} | {} | {} |", calls.len(), calls.join(" "));
        assert!(page.contains(&row), "SPECIFICATION.md lacks the row\n{row}");
    }
}

#[test]
fn nothing_is_both_let_through_and_refused_and_no_rule_swallows_another() {
    for role in Role::ALL {
        let refused: Vec<_> =
            Role::refusals().chain(BACKTRACE_REFUSALS).map(|refusal| refusal.call).collect();
        let mut seen = BTreeMap::new();
        for rule in role.rules() {
            assert!(!refused.contains(&rule.call), "{role}: {}", rule.call);
            assert!(!rule.why.is_empty());
            let conditions: &mut Vec<_> = seen.entry(rule.call).or_default();
            assert!(!conditions.contains(&rule.when), "{role}: {} twice", rule.call);
            conditions.push(rule.when);
            // A rule without conditions would make the others of the call pointless.
            let any = conditions.iter().any(|when| when.is_empty());
            assert!(conditions.len() == 1 || !any, "{role}: {}", rule.call);
        }
    }
}
