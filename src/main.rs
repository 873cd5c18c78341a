//! The `firecrest` program: flags to builder, builder to machine, the machine's end to exit status.
#![no_main]

mod devices;
mod doctor;
mod hello;
mod lock;
mod run;
mod terminal;
mod text;
mod words;

use std::{error::Error, io::Write, iter::successors, panic};

use lexopt::prelude::*;

const HELP: &str = "\
Firecrest runs a kernel in a microVM.

Usage:
  firecrest run --kernel FILE [OPTIONS]   boot a kernel, its serial port on this terminal
  firecrest hello                         boot the guest that is built into this program
  firecrest doctor                        say what this host can do, and what to mend
  firecrest --help | --version

Options of run:
  -k, --kernel FILE      the kernel: an uncompressed ELF (vmlinux) or a bzImage
  -i, --initrd FILE      the initial RAM disk
  -c, --cmdline TEXT     the kernel's command line [console=ttyS0 panic=-1]
  -m, --memory MIB       memory in MiB, 16 or more [128]
      --huge-pages       ask the host for transparent huge pages: a faster guest, which
                         takes memory in pieces of 2 MiB
  -n, --cpus N           virtual CPUs, 1 to 64 [1]
  -p, --protocol NAME    how the kernel is entered: auto, linux or pvh [auto]
      --timeline         at the end, say on stderr when each phase of the start was over

Devices, up to 24, in the order in which the guest finds them:
      --block path=FILE[,ro][,serial=TEXT][,engine=sync|io_uring][,queues=N]
              [,block-size=512|4096][,cache=writeback|writethrough]
              [,bandwidth=BYTES_PER_SECOND][,iops=N]
      --net tap=NAME[,mac=ADDRESS][,mtu=N][,pairs=N][,bandwidth=BYTES_PER_SECOND]
      --vsock cid=N,path=SOCKET

What becomes of a thread of the machine that makes a system call it has no use for:
      --jail MODE        enforce: the program is killed; trap: the same, with a core
                         where those are kept; log: told in the audit log alone;
                         off: threads have no filters [enforce]

A lock on the program itself, put on before the guest starts:
      --lock[=WORD,...]  no_new_privs, no capabilities, no inherited descriptors, no core
              dumps, limits, Landlock; what the kernel cannot do is told. The words:
              strict         ... and is an error
              namespaces     mount, network, IPC and UTS; an empty root file system
              pid-namespace  alone in a PID namespace; a parent passes signals on
              uid=N,gid=N    another user and group
              cgroup=DIR     a cgroup v2 directory, and limits in it:
                             memory=MIB, cpu=PERCENT, pids=N

On a terminal, Ctrl-A x ends the guest and Ctrl-A Ctrl-A sends one Ctrl-A; every
other key goes to the guest. SIGINT, SIGTERM, SIGHUP and SIGQUIT end it, too; a
second one does so at once, whether its output can be written or not. SIGUSR1 has
disks look at the size of their files again.

Exit status:
   0  the guest powered off         16  the guest reset itself
   1  an error, told on stderr      17  the guest's kernel panicked
   2  a mistake in the usage        18  the guest crashed
                                    19  the guest was stopped
";

/// Where the process begins: not in the standard library, which would read `/proc/self/maps` and give every thread a stack for
/// signals, so as to say of a stack that overflows that it did. That is a thirtieth of a start.
#[unsafe(no_mangle)]
extern "C" fn main() -> libc::c_int {
    // What else it does is done here: a pipe that nobody reads is an error of writing, and no file that is opened is taken
    // for standard input, output or error where those are closed.
    // SAFETY: numbers, and the name of a file that ends in a zero.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        for fd in 0..=2 {
            if libc::fcntl(fd, libc::F_GETFD) == -1 && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) != fd {
                return 1;
            }
        }
    }
    panic::catch_unwind(status).unwrap_or(101).into()
}

fn status() -> u8 {
    match command() {
        Ok(status) => status,
        Err(error) if error.is::<lexopt::Error>() => {
            eprintln!("firecrest: {error} (see firecrest --help)");
            2
        }
        Err(error) => {
            let causes = successors(Some(&*error as &dyn Error), |cause| (*cause).source());
            eprintln!("firecrest: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            1
        }
    }
}

/// Does what the arguments say; gives the exit status.
fn command() -> Result<u8, Box<dyn Error>> {
    let mut args = lexopt::Parser::from_env();
    let command = match args.next()? {
        Some(Short('h') | Long("help")) => || say(HELP),
        Some(Short('V') | Long("version")) => || say(concat!("firecrest ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(Value(name)) if name == "run" => return run::run(&mut args),
        Some(Value(name)) if name == "hello" => hello::hello,
        Some(Value(name)) if name == "doctor" => doctor::doctor,
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(lexopt::Error::from("give a command: run, hello or doctor").into()),
    };
    match args.next()? {
        None => command(),
        Some(Short('h') | Long("help")) => say(HELP),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn say(text: &str) -> Result<u8, Box<dyn Error>> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}
