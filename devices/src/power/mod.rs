//! The ports by which a guest ends its own run: keyboard-controller reset, ACPI sleep and reset registers,
//! and the panic notifier.
//!
//! None of them holds state; a byte written either is the one that counts or does nothing.
//!
//! Sources: ACPI 6.5 sections 4.8.3.6 (reset register) and 4.8.3.7 (sleep control and status registers);
//! for the pvpanic port, QEMU's `docs/specs/pvpanic.rst`; for the keyboard controller, the PC AT's
//! "pulse output port" commands 0xF0-0xFF, whose bit 0, when clear, pulses the CPU's reset line.
//!
//! | threat | answer |
//! |---|---|
//! | a guest writes every value to every port | at most it ends its own run |
//! | a guest reads them in a loop | a constant each time, nothing allocated |

/// What a guest asked for by writing one of the [`Register`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Power off (ACPI S5).
    PowerOff,
    /// Reset, through the keyboard controller.
    KeyboardReset,
    /// Reset, through the ACPI reset register.
    AcpiReset,
    /// The guest's kernel has panicked, and says so.
    Panicked,
}

/// One of the byte-wide registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Keyboard controller, status (read) and command (write).
    KeyboardCommand,
    /// ACPI sleep control.
    SleepControl,
    /// ACPI sleep status.
    SleepStatus,
    /// ACPI reset.
    Reset,
    /// Panic notifier.
    Panic,
}

/// Value of the ACPI reset register that resets, as the FADT announces it.
pub const RESET_VALUE: u8 = 1;

/// Sleep type of S5 in the sleep control register, as the DSDT's `\_S5_` announces it.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Sleep control: the type sits in bits 2-4, bit 5 starts the transition.
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_FIELDS: u8 = SLEEP_ENABLE | 0b111 << SLEEP_TYPE_SHIFT;

/// Keyboard controller: pulse the lines whose bits are clear; of these only bit 0 (reset) is wired.
const PULSE_RESET: u8 = 0xfe;

/// Panic notifier: "the guest has panicked", both as an event and as a supported feature.
const PANICKED: u8 = 1;

/// Takes a byte the guest wrote.
#[must_use]
pub fn write(register: Register, value: u8) -> Option<Request> {
    let request = match register {
        Register::KeyboardCommand => (value == PULSE_RESET, Request::KeyboardReset),
        Register::SleepControl => {
            (value & SLEEP_FIELDS == SLEEP_ENABLE | SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT, Request::PowerOff)
        }
        Register::SleepStatus => return None,
        Register::Reset => (value == RESET_VALUE, Request::AcpiReset),
        Register::Panic => (value & PANICKED != 0, Request::Panicked),
    };
    request.0.then_some(request.1)
}

/// The byte the guest reads.
#[must_use]
pub fn read(register: Register) -> u8 {
    match register {
        // Input buffer empty, output buffer empty: a driver that waits for either goes on at once.
        Register::KeyboardCommand | Register::SleepControl | Register::SleepStatus | Register::Reset => 0,
        Register::Panic => PANICKED,
    }
}

#[cfg(test)]
mod tests;
