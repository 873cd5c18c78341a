#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests")]

use super::*;

/// Whether there are arguments with which the kernel, running this program, lets the call through.
pub(crate) fn lets_through(program: &[sock_filter], number: libc::c_long) -> bool {
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const THIS_ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let number = u32::try_from(number).unwrap();
    // The place in the program, and what the accumulator holds: `None` for what depends on arguments.
    let mut paths = vec![(0, None)];
    while let Some((place, holds)) = paths.pop() {
        let sock_filter { code, jt, jf, k } = program[place];
        let code = u32::from(code);
        let jump = |by: u8| place + 1 + usize::from(by);
        match code & 0x07 {
            libc::BPF_LD => paths.push((
                place + 1,
                match k {
                    NUMBER => Some(number),
                    ARCH => Some(THIS_ARCH),
                    _ => None,
                },
            )),
            libc::BPF_ALU => paths.push((place + 1, None)),
            libc::BPF_RET if k == libc::SECCOMP_RET_ALLOW => return true,
            libc::BPF_RET => {}
            libc::BPF_JMP if code & 0xf0 == libc::BPF_JA => {
                paths.push((place + 1 + usize::try_from(k).unwrap(), holds));
            }
            libc::BPF_JMP => {
                let taken = holds.map(|value| match code & 0xf0 {
                    libc::BPF_JEQ => value == k,
                    libc::BPF_JGE => value >= k,
                    libc::BPF_JGT => value > k,
                    operation => panic!("operation {operation:#x}"),
                });
                paths.extend((taken != Some(false)).then(|| (jump(jt), holds)));
                paths.extend((taken != Some(true)).then(|| (jump(jf), holds)));
            }
            class => panic!("class {class}"),
        }
    }
    false
}

/// What the kernel makes of this call, running this program.
pub(crate) fn answer(program: &[sock_filter], number: libc::c_long, arguments: [u64; 6]) -> u32 {
    let word = |at: u32| match at {
        NUMBER => u32::try_from(number).unwrap(),
        ARCHITECTURE => AUDIT_ARCH,
        ARGUMENTS.. => {
            let place = usize::try_from(at - ARGUMENTS).unwrap();
            u32::try_from(arguments[place / 8] >> (8 * (place % 8)) & u64::from(u32::MAX)).unwrap()
        }
        _ => panic!("nothing is loaded from {at}"),
    };
    let (mut place, mut holds) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[place];
        place += 1;
        match code {
            LOAD => holds = word(k),
            AND => holds &= k,
            RETURN => return k,
            ALWAYS => place += usize::try_from(k).unwrap(),
            EQUAL => place += usize::from(if holds == k { jt } else { jf }),
            AT_LEAST => place += usize::from(if holds >= k { jt } else { jf }),
            code => panic!("code {code:#x}"),
        }
    }
}

/// Far more entries than any list has, and longer ones: jumps that are too far for their field are taken, too.
#[test]
fn any_number_of_entries_is_found_and_nothing_else() {
    for (count, len) in [(0, 1), (1, 1), (1, 300), (2, 1), (3, 200), (31, 9), (300, 4)] {
        let mut program = vec![statement(LOAD, NUMBER); len - 1];
        program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
        let entries: Vec<_> = (0..count).map(|place| (3 * place + 1, program.clone())).collect();
        let mut whole = vec![statement(LOAD, NUMBER)];
        whole.extend(search(&entries, libc::SECCOMP_RET_KILL_PROCESS));
        for number in 0..3 * count + 3 {
            let is_there = number % 3 == 1 && number < 3 * count;
            assert_eq!(lets_through(&whole, number.into()), is_there, "{number} of {count}");
        }
    }
}
