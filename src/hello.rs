//! `firecrest hello`: the guest that is built in.

use std::time::{Duration, Instant};
use std::{error::Error, io};

use firecrest_vmm::{Console, Exit, Kernel, Vm};

core::arch::global_asm!(include_str!("hello_guest.s"), options(att_syntax, raw));

/// The guest's kernel file.
pub fn guest() -> &'static [u8] {
    unsafe extern "C" {
        static firecrest_hello_guest: u8;
        static firecrest_hello_guest_end: u8;
    }
    let (start, end) = (&raw const firecrest_hello_guest, &raw const firecrest_hello_guest_end);
    // SAFETY: the assembly defines both symbols, in this order, in one read-only section.
    unsafe { std::slice::from_raw_parts(start, end.addr().saturating_sub(start.addr())) }
}

/// Runs the guest with its output on standard output, and says how long that took.
pub fn hello() -> Result<u8, Box<dyn Error>> {
    let begun = Instant::now();
    let builder = Vm::builder().memory_mib(128).vcpus(1).kernel(Kernel::from_bytes(guest())?);
    let vm = builder.console(Console::to(io::stdout())).build()?;
    let built = begun.elapsed();
    let exit = vm.start()?.wait()?;
    if exit != Exit::PowerOff {
        return Err(format!("the built-in guest did not power off: {exit}").into());
    }
    let (ms, ran) = (|time: Duration| time.as_secs_f64() * 1e3, begun.elapsed().saturating_sub(built));
    println!("It took {:.1} ms to build and {:.1} ms from start to power-off.", ms(built), ms(ran));
    Ok(0)
}
