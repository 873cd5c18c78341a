//! A terminal of the test's own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{ptr, thread};

use super::Recorder;

/// A pseudo-terminal: the side a program sees, and the side of who sits before it.
pub struct Terminal {
    keyboard: File,
    program_side: OwnedFd,
    /// What has appeared on it.
    pub screen: Recorder,
}

/// The settings of a terminal that programs change.
#[derive(Debug, PartialEq)]
pub struct Settings {
    input: libc::tcflag_t,
    output: libc::tcflag_t,
    control: libc::tcflag_t,
    local: libc::tcflag_t,
    characters: [libc::cc_t; libc::NCCS],
}

impl Settings {
    /// Whether every key reaches the program at once, unechoed and without meaning.
    pub fn is_raw(&self) -> bool {
        self.local & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }
}

/// Both sides of a terminal: who sits before it, and what runs on it.
pub fn pair() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: the first two pointers are to values of ours; the others may be null.
    let result =
        unsafe { libc::openpty(&raw mut master, &raw mut slave, ptr::null_mut(), ptr::null(), ptr::null()) };
    assert_eq!(result, 0, "openpty: {}", io::Error::last_os_error());
    for fd in [master, slave] {
        // SAFETY: a descriptor of ours. Other programs that tests start are not to inherit it.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: two new descriptors of nobody else.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

/// Makes the terminal on a command's standard input that of a session which begins with it.
pub fn on(command: &mut Command) -> &mut Command {
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        })
    }
}

impl Terminal {
    /// A new terminal, with the usual settings.
    pub fn new() -> Self {
        let (keyboard, program_side) = pair();
        let keyboard = File::from(keyboard);

        let screen = Recorder::default();
        let (mut output, mut recorder) = (keyboard.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                recorder.write_all(&buffer[..count]).unwrap();
            }
        });
        Self { keyboard, program_side, screen }
    }

    /// Makes this the terminal of a program yet to be started.
    pub fn of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let side = || self.program_side.try_clone().unwrap();
        command.stdin(side()).stdout(side()).stderr(side());
        on(command)
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// The settings of this moment.
    pub fn settings(&self) -> Settings {
        let mut settings = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: an open terminal and room for its settings, for which zero is valid, too.
        let (result, settings) = unsafe {
            let result = libc::tcgetattr(self.program_side.as_raw_fd(), settings.as_mut_ptr());
            (result, settings.assume_init())
        };
        assert_eq!(result, 0, "tcgetattr: {}", io::Error::last_os_error());
        Settings {
            input: settings.c_iflag,
            output: settings.c_oflag,
            control: settings.c_cflag,
            local: settings.c_lflag,
            characters: settings.c_cc,
        }
    }
}
