//! Which thread may call what, and why: one list for each role.
//!
//! The lists are short because a thread's work is: it opens nothing (what it works on is opened before it
//! starts), closes nothing (what it owns is dropped by whoever joins it, see [`spawn`](crate::spawn)), waits in
//! one call and works in a few. A call that is not here is missing on purpose; whoever finds that a thread needs
//! another one should first ask whether another thread, or an earlier moment, could make it.

use std::fmt;

use crate::rule::{Arg, Refusal, Rule, Value, call};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs a vCPU.
    Vcpu,
    /// Serves a disk by system calls.
    Block,
    /// Serves a disk by an io_uring, made before the filter goes on.
    BlockUring,
    /// Serves a pair of queues of a network card, on a TAP.
    Net,
    /// Speaks to the guest for a vsock device, and moves bytes between it and sockets it is given.
    VsockStreams,
    /// Opens the sockets for it, and never sees the guest's memory.
    VsockBroker,
    /// Carries bytes between the serial port's buffer and the embedder's reader and writer.
    Console,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Vcpu,
        Self::Block,
        Self::BlockUring,
        Self::Net,
        Self::VsockStreams,
        Self::VsockBroker,
        Self::Console,
    ];

    /// What threads of this role may call.
    pub fn rules(self) -> impl Iterator<Item = &'static Rule> + Clone {
        let own: &[&[Rule]] = match self {
            Self::Vcpu => &[VCPU],
            Self::Block => &[WAITS, READS, WRITES, ROOM, FLUSH],
            Self::BlockUring => &[WAITS, READS, WRITES, ROOM, RING],
            Self::Net => &[WAITS, INTERESTS, READS, WRITES, NET],
            Self::VsockStreams => &[WAITS, INTERESTS, READS, WRITES, STREAMS],
            Self::VsockBroker => &[WAITS, BROKER],
            Self::Console => &[WAITS, READS],
        };
        EVERY_THREAD.iter().chain(own.iter().flat_map(|group| group.iter()))
    }

    /// What threads of any role are answered without their calls being made.
    pub fn refusals() -> impl Iterator<Item = &'static Refusal> + Clone {
        REFUSALS.iter()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpu => "vcpu",
            Self::Block => "block",
            Self::BlockUring => "block (io_uring)",
            Self::Net => "net",
            Self::VsockStreams => "vsock streams",
            Self::VsockBroker => "vsock broker",
            Self::Console => "console",
        })
    }
}

#[allow(clippy::cast_sign_loss, reason = "flags")]
const fn bits(flags: libc::c_int) -> u32 {
    flags as u32
}

const EXEC: u32 = bits(libc::PROT_EXEC);
const MAP_KIND: u32 = bits(libc::MAP_TYPE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
const FRESH: u32 = bits(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
/// Bits of a futex operation that do not make it another one.
const FUTEX_KIND: u32 = !bits(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);

/// Locks, memory, a way to be heard, an end.
const EVERY_THREAD: &[Rule] = &[
    Rule::new(call!(SYS_write), &[], "eventfds: interrupts, wake-ups, kicks; a panic's message"),
    Rule::new(
        call!(SYS_futex),
        &[Arg::has(1, FUTEX_KIND, bits(libc::FUTEX_WAKE))],
        "locks, and a thread's last sign: woken is who waits",
    ),
    // The standard library's way to wait.
    Rule::new(
        call!(SYS_futex),
        &[Arg::has(1, FUTEX_KIND, bits(libc::FUTEX_WAIT_BITSET))],
        "locks and condition variables of the standard library",
    ),
    Rule::new(
        call!(SYS_futex),
        &[Arg::has(1, FUTEX_KIND, bits(libc::FUTEX_WAIT))],
        "locks of the C library: the allocator's",
    ),
    Rule::new(
        call!(SYS_mmap),
        &[Arg::lacks(2, EXEC), Arg::has(3, MAP_KIND, FRESH)],
        "the allocator: fresh memory, over nothing that is there, not executable",
    ),
    Rule::new(call!(SYS_munmap), &[], "the allocator gives large pieces back"),
    // musl's allocator cannot do without; glibc's can, see `REFUSALS`.
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_mprotect), &[Arg::lacks(2, EXEC)], "the allocator opens more of its heap"),
    Rule::new(
        call!(SYS_getpid),
        &[],
        "the process changes its user: the C library's signal for that is checked to be its own",
    ),
    Rule::new(call!(SYS_rt_sigreturn), &[], "and ends (see `REFUSALS` for what is between)"),
    Rule::new(call!(SYS_exit), &[], "the thread's end"),
];

const VCPU: &[Rule] = &[
    Rule::new(call!(SYS_ioctl), &[Arg::is(1, KVM_RUN)], "runs the guest"),
    Rule::new(call!(SYS_ioctl), &[Arg::is(1, KVM_KVMCLOCK_CTRL)], "tells a paused guest that it was"),
    Rule::new(
        call!(SYS_ioctl),
        &[Arg::is(1, KVM_SET_GSI_ROUTING)],
        "the guest's driver has changed a pin of the IOAPIC",
    ),
    Rule::new(
        call!(SYS_ioctl),
        &[Arg::is(1, KVM_REGISTER_COALESCED_MMIO)],
        "the guest looks at the IOAPIC for the first time: KVM keeps what only selects a register",
    ),
    #[cfg(not(target_env = "musl"))]
    Rule::new(call!(SYS_preadv2), &[Arg::is_the(0, Value::Kicks)], "takes a kick, and reads nothing else"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_readv), &[Arg::is_the(0, Value::Kicks)], "takes a kick, and reads nothing else"),
];

const KVM_RUN: u32 = 0xae80;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_REGISTER_COALESCED_MMIO: u32 = 0x4010_ae67;

/// A device's loop.
const WAITS: &[Rule] = &[
    #[cfg(not(target_env = "musl"))]
    Rule::new(call!(SYS_epoll_wait), &[], "waits for kicks, for the back end and for commands"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_epoll_pwait), &[], "waits for kicks, for the back end and for commands"),
];

/// Of devices that wait for something else from time to time.
const INTERESTS: &[Rule] = &[Rule::new(call!(SYS_epoll_ctl), &[], "changes what is waited for")];

/// Bytes from files, sockets and TAPs.
const READS: &[Rule] = &[
    #[cfg(not(target_env = "musl"))]
    Rule::new(call!(SYS_preadv2), &[], "reads from the back end, and the clock (a timerfd)"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_preadv), &[], "musl's name for it with an offset and no flag"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_readv), &[], "and without an offset"),
];

/// Bytes to them.
const WRITES: &[Rule] = &[
    Rule::new(call!(SYS_pwritev2), &[], "writes to the back end"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_pwritev), &[], "musl's name for it with an offset and no flag"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_writev), &[], "and without an offset"),
];

const ROOM: &[Rule] = &[Rule::new(call!(SYS_fallocate), &[], "discards, and writes zeroes")];

const FLUSH: &[Rule] = &[Rule::new(call!(SYS_fdatasync), &[], "flushes; a ring does that by itself")];

const RING: &[Rule] = &[Rule::new(
    call!(SYS_io_uring_enter),
    &[],
    "submits and waits; what a ring may do is bounded when it is made",
)];

const NET: &[Rule] = &[
    Rule::new(
        call!(SYS_ioctl),
        &[Arg::is(1, low_bits(libc::TUNSETOFFLOAD))],
        "what frames may be like, as the driver has agreed to",
    ),
    Rule::new(
        call!(SYS_ioctl),
        &[Arg::is(1, low_bits(libc::TUNSETQUEUE))],
        "how many pairs of queues are in use, as the driver says",
    ),
];

#[allow(clippy::cast_possible_truncation, reason = "ioctls have 32 bits")]
const fn low_bits(number: libc::c_ulong) -> u32 {
    number as u32
}

const STREAMS: &[Rule] = &[Rule::new(call!(SYS_shutdown), &[], "the guest has closed a direction")];

const BROKER: &[Rule] = &[
    Rule::new(call!(SYS_accept4), &[], "a program of the host's connects to the guest"),
    Rule::new(call!(SYS_socket), &[Arg::is(0, bits(libc::AF_UNIX))], "to reach a program of the host's"),
    Rule::new(
        call!(SYS_connect),
        &[],
        "as above; all sockets that the thread can have are of the Unix family",
    ),
    Rule::new(call!(SYS_close), &[], "a connection is over, a program cannot be reached"),
];

/// What the libraries below us call and can do without. None of it reaches the kernel.
pub(crate) const REFUSALS: &[Refusal] = &[
    // An answer below what was asked for is how the kernel says that there is no more.
    Refusal::new(call!(SYS_brk), 0, "the allocator, where the thread shares the main heap, then maps memory"),
    #[cfg(not(target_env = "musl"))]
    Refusal::new(call!(SYS_mprotect), libc::ENOMEM, "the allocator, whose heap is full, then maps memory"),
    Refusal::new(
        call!(SYS_madvise),
        libc::EPERM,
        "the allocator offers memory back, a thread its stack: kept",
    ),
    Refusal::new(call!(SYS_mremap), libc::ENOMEM, "the allocator then copies what it cannot extend"),
    Refusal::new(
        call!(SYS_sched_yield),
        libc::EPERM,
        "channels, while another thread is half-way: they go on",
    ),
    Refusal::new(call!(SYS_rt_sigprocmask), libc::EPERM, "a thread's end; all signals are blocked already"),
    Refusal::new(call!(SYS_sigaltstack), libc::EPERM, "a thread's end takes its signal stack down"),
    Refusal::new(
        call!(SYS_fcntl),
        libc::EPERM,
        "debug builds look whether what is closed was open: they assume so",
    ),
    Refusal::new(call!(SYS_gettid), 0, "a panic's message names the thread by number, too: by 0"),
    Refusal::new(
        call!(SYS_clock_gettime),
        libc::EPERM,
        "a logger that stamps its lines, on a host whose vDSO cannot tell the time: it fails, or panics",
    ),
    // When the process changes its user or groups, its C library has every thread do so, and aborts unless all
    // succeed. Ours say so and stay who they were: who opened what they hold.
    Refusal::new(call!(SYS_setuid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setgid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setreuid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setregid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setresuid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setresgid), 0, AS_IT_WAS),
    Refusal::new(call!(SYS_setgroups), 0, AS_IT_WAS),
];

const AS_IT_WAS: &str = "the process changes its user: the thread stays as it was";

/// As [`REFUSALS`], where the environment has panics print a backtrace (`RUST_BACKTRACE`): the standard library
/// would open files for it, on the thread that panics. So it finds none, and the backtrace has no names.
pub(crate) const BACKTRACE_REFUSALS: &[Refusal] = &[
    Refusal::new(call!(SYS_getcwd), libc::EACCES, "to print paths relative to it"),
    Refusal::new(call!(SYS_openat), libc::EACCES, "the program's mappings and debug information"),
    Refusal::new(call!(SYS_open), libc::EACCES, "the same, in musl"),
    Refusal::new(call!(SYS_readlink), libc::EACCES, "the program's own name"),
];

#[cfg(test)]
#[path = "role_tests.rs"]
mod tests;
