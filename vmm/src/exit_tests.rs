use super::*;

fn crash(reason: CrashReason) -> Crash {
    Crash {
        vcpu: 3,
        reason,
        registers: Some(Registers {
            rip: 0xffff_ffff_8110_d095,
            cs: 0x10,
            r15: 0xabc,
            ..Registers::default()
        }),
        instruction: vec![0xf0, 0x49, 0x0f, 0xc7],
        instruction_address: Some(0x110_d095),
        hint: None,
    }
}

#[test]
fn each_reason_says_what_kvm_said() {
    for (reason, text) in [
        (
            CrashReason::Internal { suberror: 1, data: vec![0x1f] },
            "KVM internal error, suberror 1 (an instruction it cannot emulate) 0x1f",
        ),
        (CrashReason::Internal { suberror: 77, data: Vec::new() }, "KVM internal error, suberror 77"),
        (
            CrashReason::FailedEntry { hardware_reason: 0x8000_0021, cpu: 1 },
            "failed entry, hardware reason 0x80000021 on CPU 1",
        ),
        (
            CrashReason::MemoryFault { guest_addr: Some(0x100_0000) },
            "guest memory at 0x1000000 is gone (was its file truncated?)",
        ),
        (
            CrashReason::MemoryFault { guest_addr: None },
            "guest memory is gone (was the kernel's or initrd's file truncated?)",
        ),
        (CrashReason::Run { errno: libc::ENOMEM }, "KVM_RUN: Cannot allocate memory (os error 12)"),
        (CrashReason::UnknownExit(39), "unknown exit reason 39"),
        (CrashReason::Routing("no room".to_owned()), "interrupt routes refused: no room"),
    ] {
        assert_eq!(reason.to_string(), text);
        let whole = Exit::Crash(Box::new(crash(reason))).to_string();
        assert!(whole.starts_with(&format!("the guest crashed: {text} on vCPU 3\n")), "{whole}");
    }
}

#[test]
fn a_crash_is_told_with_instruction_registers_and_hint() {
    let mut crash = crash(CrashReason::UnknownExit(1));
    crash.hint = Some(crate::host::PVM_HINT);
    let text = crash.to_string();
    for part in ["instruction: f0 49 0f c7\n", "rip ffffffff8110d095", "cs 0010", "r15 0000000000000abc"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.ends_with("as can an emulated one"), "{text}");
    crash.instruction.clear();
    crash.registers = None;
    assert!(!crash.to_string().contains("instruction:") && !crash.to_string().contains("rip"), "{crash}");
}
