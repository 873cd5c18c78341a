//! `firecrest hello`: the guest that is built in.

use std::error::Error;
use std::io;
use std::time::Instant;

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
    let running = vm.start()?;
    let exit = running.wait()?;
    let ended = begun.elapsed();
    drop(running);
    if exit != Exit::PowerOff {
        return Err(format!("the built-in guest did not power off: {exit}").into());
    }
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let (built, ran, all) = (ms(built), ms(ended.saturating_sub(built)), ms(begun.elapsed()));
    println!("It took {all:.1} ms: {built:.1} to build the machine, {ran:.1} from its start to power-off.");
    Ok(0)
}
