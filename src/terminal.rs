//! The caller's terminal: raw while the guest has it, as it was before on every way out.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;

use firecrest_vmm::{ConsoleInput, StopHandle};

/// Puts the terminal back when dropped.
#[derive(Clone)]
pub struct RawMode(libc::termios);

impl RawMode {
    /// Makes standard input raw, if it is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let mut saved = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: `saved` has room for the settings; zero is valid for each of them, should there be none.
        let (result, saved) = unsafe { (libc::tcgetattr(0, saved.as_mut_ptr()), saved.assume_init()) };
        if result != 0 {
            return Ok(None);
        }
        let mut raw = saved;
        // SAFETY: valid settings.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        raw.c_oflag = saved.c_oflag; // Messages still get their line ends.
        set(&raw)?;
        Ok(Some(Self(saved)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = set(&self.0); // A terminal that is gone needs no restoring.
    }
}

/// Stops like any program that wants a terminal which another one has, until it is this program's turn.
pub fn come_to_the_foreground() {
    let mut settings = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: `settings` has room for the settings; zero is valid for each of them, should there be none.
    let (result, settings) = unsafe { (libc::tcgetattr(0, settings.as_mut_ptr()), settings.assume_init()) };
    if result == 0 {
        let _ = set(&settings); // A terminal that is gone has no foreground.
    }
}

fn set(settings: &libc::termios) -> io::Result<()> {
    // SAFETY: valid settings.
    let result = unsafe { libc::tcsetattr(0, libc::TCSANOW, settings) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Carries what is typed to the guest until either ends. Ctrl-A x stops the guest.
pub fn feed(mut guest: ConsoleInput, stop: &StopHandle) -> io::Result<()> {
    const CTRL_A: u8 = 1;
    let mut escaped = false;
    for byte in io::stdin().lock().bytes() {
        match (std::mem::take(&mut escaped), byte?) {
            (false, CTRL_A) => escaped = true,
            (true, b'x') => stop.stop(),
            (_, byte) => guest.write_all(&[byte])?,
        }
    }
    Ok(())
}
