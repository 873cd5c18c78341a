//! The serial port, for results, and the port that ends the run.

use core::arch::asm;
use core::fmt::{self, Write};
use core::hint::spin_loop;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out(0x3f8, byte));
        Ok(())
    }
}

/// Prints a line.
pub fn say(line: fmt::Arguments) {
    // The port takes everything: there is no error to be had.
    let _ = Serial.write_fmt(format_args!("io: {line}\n"));
}

/// The keyboard controller's reset: the end of the run for every monitor.
pub fn end_run() -> ! {
    out(0x64, 0xfe);
    loop {
        spin_loop();
    }
}

fn out(port: u16, value: u8) {
    // SAFETY: the ports are a serial port's and the reset's; writing them touches no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}
