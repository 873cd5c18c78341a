//! Every role is closed: a thread of it that calls what it may not takes the process with it. And it is open as
//! far as it says: what is refused is answered.
//!
//! Each attempt is made in a process of its own: this test's program, started again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::mpsc;

use firecrest_seccomp::{End, Jail, Role, Work, spawn};

/// Names the role and the attempt, in the process that makes it.
const ATTEMPT: &str = "FIRECREST_TEST_ATTEMPT";
/// What vCPUs take their kicks from.
const KICKS: libc::c_int = 1000;

/// What to do in the jail.
enum Attempt {
    Nothing,
    Panic,
    Call(libc::c_long, [usize; 6]),
    #[cfg(target_arch = "x86_64")]
    By32Bits,
    Late(libc::c_long, fn() -> [usize; 6]),
}

impl Work for Attempt {
    fn run(&mut self) {
        match *self {
            Self::Nothing => {}
            Self::Panic => panic!("the work has gone wrong"),
            Self::Call(number, args) => _ = call(number, args),
            Self::Late(number, args) => _ = call(number, args()),
            #[cfg(target_arch = "x86_64")]
            Self::By32Bits => by_the_32_bit_abi(),
        }
    }
}

/// A call by number, with these arguments.
fn call(number: libc::c_long, args: [usize; 6]) -> libc::c_long {
    let [a, b, c, d, e, f] = args;
    // SAFETY: every attempt here is to end in the filter; what the kernel would do of it, were it made, harms
    // nobody but this process.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

fn path() -> usize {
    c"/etc/passwd".as_ptr().expose_provenance()
}

fn page() -> usize {
    // SAFETY: a fresh anonymous page.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED, "a page can be had under every filter");
    page.expose_provenance()
}

#[allow(clippy::cast_sign_loss, reason = "flags")]
const fn bits(flags: libc::c_int) -> usize {
    flags as usize
}

const RW: usize = bits(libc::PROT_READ | libc::PROT_WRITE);
const RX: usize = bits(libc::PROT_READ | libc::PROT_EXEC);
const ANONYMOUS: usize = bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);

/// What it is, its number, and its arguments.
type Forbidden = (&'static str, libc::c_long, fn() -> [usize; 6]);

/// What nobody may do. Where a role has the call, its arguments are what is not allowed.
const FORBIDDEN: &[Forbidden] = &[
    ("open", libc::SYS_open, || [path(), 0, 0, 0, 0, 0]),
    ("openat", libc::SYS_openat, || [bits(libc::AT_FDCWD), path(), 0, 0, 0, 0]),
    ("openat2", libc::SYS_openat2, || [bits(libc::AT_FDCWD), path(), 0, 0, 0, 0]),
    ("socket, of the internet", libc::SYS_socket, || {
        [bits(libc::AF_INET), bits(libc::SOCK_STREAM), 0, 0, 0, 0]
    }),
    ("execve", libc::SYS_execve, || [path(), 0, 0, 0, 0, 0]),
    ("execveat", libc::SYS_execveat, || [0, path(), 0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, || [0, 0, 0, 0, 0, 0]),
    ("clone", libc::SYS_clone, || [bits(libc::SIGCHLD), 0, 0, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, || [0, 0, 0, 0, 0, 0]),
    ("fork", libc::SYS_fork, || [0; 6]),
    ("mprotect, to execute", libc::SYS_mprotect, || [page(), 4096, RX, 0, 0, 0]),
    ("mmap, to execute", libc::SYS_mmap, || [0, 4096, RX, ANONYMOUS, usize::MAX, 0]),
    ("mmap, over what is there", libc::SYS_mmap, || {
        let fixed = ANONYMOUS | bits(libc::MAP_FIXED);
        [page(), 4096, RW, fixed, usize::MAX, 0]
    }),
    ("mmap, of a file", libc::SYS_mmap, || [0, 4096, RW, bits(libc::MAP_PRIVATE), 0, 0]),
    ("ioctl, KVM_CREATE_VM", libc::SYS_ioctl, || [0, 0xae01, 0, 0, 0, 0]),
    ("ioctl, TIOCSTI", libc::SYS_ioctl, || [0, 0x5412, 0, 0, 0, 0]),
    ("kill", libc::SYS_kill, || [1, 0, 0, 0, 0, 0]),
    ("tgkill", libc::SYS_tgkill, || [1, 1, bits(libc::SIGKILL), 0, 0, 0]),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, || [0; 6]),
    ("bpf", libc::SYS_bpf, || [0; 6]),
    ("io_uring_setup", libc::SYS_io_uring_setup, || [1, page(), 0, 0, 0, 0]),
    ("io_uring_register", libc::SYS_io_uring_register, || [0; 6]),
    ("process_vm_writev", libc::SYS_process_vm_writev, || [1, 0, 0, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, || [1, 0, 0, 0, 0, 0]),
    ("prctl", libc::SYS_prctl, || [bits(libc::PR_SET_DUMPABLE), 1, 0, 0, 0, 0]),
    ("seccomp", libc::SYS_seccomp, || [0; 6]),
    ("userfaultfd", libc::SYS_userfaultfd, || [0; 6]),
    ("futex, with priority inheritance", libc::SYS_futex, || [page(), bits(libc::FUTEX_LOCK_PI), 0, 0, 0, 0]),
    ("futex, requeueing", libc::SYS_futex, || [page(), bits(libc::FUTEX_CMP_REQUEUE), 0, 0, 0, 0]),
    ("sendmsg", libc::SYS_sendmsg, || [0; 6]),
    ("unlinkat", libc::SYS_unlinkat, || [bits(libc::AT_FDCWD), path(), 0, 0, 0, 0]),
    ("setns", libc::SYS_setns, || [0; 6]),
    ("unshare", libc::SYS_unshare, || [0; 6]),
    ("mount", libc::SYS_mount, || [0; 6]),
    ("capset", libc::SYS_capset, || [0; 6]),
    ("memfd_create", libc::SYS_memfd_create, || [path(), 0, 0, 0, 0, 0]),
    ("dup2", libc::SYS_dup2, || [0, 1, 0, 0, 0, 0]),
    ("sendto", libc::SYS_sendto, || [0; 6]),
    ("clock_settime", libc::SYS_clock_settime, || [0; 6]),
    ("exit_group", libc::SYS_exit_group, || [0; 6]),
];

/// What a call by the 32-bit ABI does not find either: 20 is getpid there, and writev here.
#[cfg(target_arch = "x86_64")]
fn by_the_32_bit_abi() {
    // SAFETY: the interrupt makes a system call, which has no arguments, and changes the registers named.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") 20 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
    };
}

/// What is forbidden besides, by role: the calls of other roles.
fn foreign(role: Role) -> impl Iterator<Item = libc::c_long> {
    let own: BTreeSet<_> = role.rules().map(|rule| rule.call.number).collect();
    let refused: BTreeSet<_> = Role::refusals().map(|refusal| refusal.call.number).collect();
    let all: BTreeSet<_> =
        Role::ALL.into_iter().flat_map(|role| role.rules().map(|rule| rule.call.number)).collect();
    all.into_iter().filter(move |number| !own.contains(number) && !refused.contains(number))
}

/// Runs `attempt` of `role` in a process of its own.
fn attempt(role: Role, attempt: &str, jail: &str) -> ExitStatus {
    attempt_with(role, attempt, jail, "0")
}

fn attempt_with(role: Role, attempt: &str, jail: &str, backtrace: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_attempt", "--nocapture"])
        .env(ATTEMPT, format!("{role}/{attempt}/{jail}"))
        .env("RUST_BACKTRACE", backtrace)
        .output()
        .unwrap();
    output.status
}

/// The process that makes the attempt: it does nothing where there is none to be made.
#[test]
fn one_attempt() {
    let Ok(what) = std::env::var(ATTEMPT) else { return };
    let mut words = what.splitn(3, '/');
    let mut word = || words.next().unwrap().to_owned();
    let (role, name, jail) = (word(), word(), word());
    let role = Role::ALL.into_iter().find(|known| known.to_string() == role).unwrap();
    let jail = match jail.as_str() {
        "off" => Jail::off(),
        "log" => Jail::log(),
        "trap" => Jail::trap(),
        _ => Jail::enforce(),
    };
    let filter = jail.filter(role, KICKS).unwrap();
    let argument = |text: &str| bits(text.parse().unwrap());
    let work = match (name.as_str(), name.parse()) {
        (name, _) if let Some((number, first)) = name.split_once(':') => {
            Attempt::Call(number.parse().unwrap(), [argument(first), 0, 0, 0, 0, 0])
        }
        (_, Ok(number)) => Attempt::Call(number, [usize::MAX; 6]),
        ("nothing", _) => Attempt::Nothing,
        ("panic", _) => Attempt::Panic,
        #[cfg(target_arch = "x86_64")]
        ("32-bit", _) => Attempt::By32Bits,
        (name, _) => {
            let (_, number, args) = FORBIDDEN.iter().find(|(known, ..)| *known == name).unwrap();
            Attempt::Late(*number, *args)
        }
    };
    let expected = match work {
        Attempt::Panic => End::Panicked("the work has gone wrong".to_owned()),
        _ => End::Returned,
    };
    let (ended, end) = mpsc::channel();
    let report = move |end| ended.send(end).unwrap();
    spawn("fc-test", |_| Ok(filter), work, report).unwrap().join().unwrap();
    assert_eq!(end.recv().unwrap(), expected);
}

#[test]
fn the_process_is_killed_by_what_is_forbidden() {
    for role in Role::ALL {
        assert!(attempt(role, "nothing", "enforce").success(), "{role} does nothing, and lives");
        let extra: &[&str] = if cfg!(target_arch = "x86_64") { &["32-bit"] } else { &[] };
        for name in FORBIDDEN.iter().map(|(name, ..)| *name).chain(extra.iter().copied()) {
            // glibc's mprotect is answered by an error, whatever it is for.
            let refused = Role::refusals().any(|refusal| name.starts_with(refusal.call.name));
            let status = attempt(role, name, "enforce");
            let expected = if refused { None } else { Some(libc::SIGSYS) };
            assert_eq!(status.signal(), expected, "{role}: {name}: {status}");
        }
        for number in foreign(role) {
            let status = attempt(role, &number.to_string(), "enforce");
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{role}: call {number} of other roles: {status}");
        }
    }
}

/// A panic is caught and reported under every filter, with a backtrace or without.
#[test]
fn a_panic_is_no_violation() {
    for role in Role::ALL {
        for backtrace in ["0", "1", "full"] {
            let status = attempt_with(role, "panic", "enforce", backtrace);
            assert!(status.success(), "{role}, RUST_BACKTRACE={backtrace}: {status}");
        }
    }
}

/// vCPUs have a call to read, and nothing that they could read by it.
#[test]
fn a_vcpu_reads_its_kicks_and_nothing_else() {
    let read = libc::SYS_preadv2.to_string();
    let attempt = |descriptor| attempt(Role::Vcpu, &format!("{read}:{descriptor}"), "enforce");
    assert!(attempt(KICKS).success());
    for other in [0, KICKS - 1, KICKS + 1, -1] {
        assert_eq!(attempt(other).signal(), Some(libc::SIGSYS), "{other}");
    }
}

#[test]
fn the_embedder_chooses_what_a_violation_ends_in() {
    assert!(attempt(Role::Net, "bpf", "off").success());
    assert!(attempt(Role::Net, "bpf", "log").success());
    assert_eq!(attempt(Role::Net, "bpf", "trap").signal(), Some(libc::SIGSYS), "nobody handles it");
}
