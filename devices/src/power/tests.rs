use super::*;

/// Every value of every register, against the whole list of those that mean something.
#[test]
fn only_the_defined_values_end_a_run() {
    for value in 0..=u8::MAX {
        let keyboard = (value == 0xfe).then_some(Request::KeyboardReset);
        assert_eq!(write(Register::KeyboardCommand, value), keyboard, "{value:#x}");
        // Bits 0, 1, 6 and 7 are reserved or belong to another register, and are ignored.
        let sleep = (value & 0b0011_1100 == 0x34).then_some(Request::PowerOff);
        assert_eq!(write(Register::SleepControl, value), sleep, "{value:#x}");
        assert_eq!(write(Register::SleepStatus, value), None, "{value:#x}");
        assert_eq!(write(Register::Reset, value), (value == 1).then_some(Request::AcpiReset), "{value:#x}");
        let panic = (value & 1 == 1).then_some(Request::Panicked);
        assert_eq!(write(Register::Panic, value), panic, "{value:#x}");
    }
}

#[test]
fn the_panic_notifier_says_what_it_supports() {
    assert_eq!(read(Register::Panic), 1);
    assert_eq!(read(Register::KeyboardCommand), 0, "input buffer empty, so a reset need not wait");
    assert_eq!(read(Register::SleepStatus), 0, "not waking");
}
