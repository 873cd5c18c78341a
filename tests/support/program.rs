//! The program under test, as a user runs it.
//!
//! `FIRECREST_BIN` names it, where it is not the one that was built with the test.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::LONG;

/// The program, without input.
pub fn program() -> Command {
    let path = env::var_os("FIRECREST_BIN");
    let mut command = Command::new(path.unwrap_or_else(|| env!("CARGO_BIN_EXE_firecrest").into()));
    command.stdin(Stdio::null());
    command
}

/// What it says to these arguments.
pub fn firecrest(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// A program that does not outlive the test.
pub struct Started(pub Child);

impl Started {
    /// Starts it.
    pub fn new(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Waits for the end, which has to come by itself.
    pub fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LONG, "the program did not end");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Sends it a signal.
    pub fn send(&self, signal: libc::c_int) {
        // SAFETY: takes no pointers; the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.0.id()).unwrap(), signal) }, 0);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
