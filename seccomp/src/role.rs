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
        let groups: &[&[Rule]] = match self {
            Self::Vcpu => &[EVERY_THREAD, HEAP, VCPU],
            Self::Block => &[EVERY_THREAD, LEAN_HEAP, WAITS, TIME, READS, WRITES, DISK],
            Self::BlockUring => &[EVERY_THREAD, LEAN_HEAP, WAITS, TIME, READS, WRITES, DISK, RING],
            Self::Net => &[EVERY_THREAD, LEAN_HEAP, WAITS, INTERESTS, TIME, READS, WRITES, NET],
            Self::VsockStreams => &[EVERY_THREAD, HEAP, WAITS, INTERESTS, TIME, READS, WRITES, STREAMS],
            Self::VsockBroker => &[EVERY_THREAD, LEAN_HEAP, WAITS, INTERESTS, TIME, READS, BROKER],
            Self::Console => &[EVERY_THREAD, HEAP, READS, CONSOLE],
        };
        groups.iter().flat_map(|group| group.iter())
    }

    /// What threads of this role are answered without their calls being made.
    pub fn refusals(self) -> impl Iterator<Item = &'static Refusal> + Clone {
        let own = match self {
            Self::Block | Self::BlockUring | Self::Net | Self::VsockBroker => LEAN_HEAP_REFUSALS,
            Self::Vcpu | Self::VsockStreams | Self::Console => &[],
        };
        REFUSALS.iter().chain(own)
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
    Rule::new(call!(SYS_write), &[], "eventfds: interrupts, wake-ups; a panic's message"),
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
    Rule::new(call!(SYS_brk), &[], "the allocator, where the thread shares the main heap"),
    Rule::new(call!(SYS_exit), &[], "the thread's end"),
];

/// Of threads that allocate as they go.
const HEAP: &[Rule] = &[GROWING];

/// Of threads that reuse what they have: glibc's allocator maps each piece that finds no room in the heap it has.
#[cfg(not(target_env = "musl"))]
const LEAN_HEAP: &[Rule] = &[];
#[cfg(not(target_env = "musl"))]
const LEAN_HEAP_REFUSALS: &[Refusal] = &[Refusal::new(
    call!(SYS_mprotect),
    libc::ENOMEM,
    "the allocator then maps what it needs, piece by piece",
)];

/// musl's cannot do without.
#[cfg(target_env = "musl")]
const LEAN_HEAP: &[Rule] = HEAP;
#[cfg(target_env = "musl")]
const LEAN_HEAP_REFUSALS: &[Refusal] = &[];

const GROWING: Rule =
    Rule::new(call!(SYS_mprotect), &[Arg::lacks(2, EXEC)], "the allocator opens more of its heap");

const VCPU: &[Rule] = &[
    Rule::new(call!(SYS_ioctl), &[Arg::is(1, KVM_RUN)], "runs the guest"),
    Rule::new(call!(SYS_ioctl), &[Arg::is(1, KVM_KVMCLOCK_CTRL)], "tells a paused guest that it was"),
    Rule::new(
        call!(SYS_ioctl),
        &[Arg::is(1, KVM_SET_GSI_ROUTING)],
        "the guest's driver has changed a pin of the IOAPIC",
    ),
    Rule::new(call!(SYS_rt_sigtimedwait), &[], "takes a kick"),
    Rule::new(
        call!(SYS_tgkill),
        &[Arg::is_the(0, Value::OwnProcess), Arg::is_the(2, Value::KickSignal)],
        "kicks the other vCPUs where this one's exit has ended the run",
    ),
];

const KVM_RUN: u32 = 0xae80;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;

/// A device's loop.
const WAITS: &[Rule] = &[
    #[cfg(not(target_env = "musl"))]
    Rule::new(call!(SYS_epoll_wait), &[], "waits for kicks, for the back end and for commands"),
    #[cfg(target_env = "musl")]
    Rule::new(call!(SYS_epoll_pwait), &[], "waits for kicks, for the back end and for commands"),
];

/// Of devices that wait for something else from time to time.
const INTERESTS: &[Rule] = &[Rule::new(call!(SYS_epoll_ctl), &[], "changes what is waited for")];

/// Rate limits and time-outs.
const TIME: &[Rule] = &[Rule::new(
    call!(SYS_clock_gettime),
    &[],
    "where the vDSO cannot tell the time by itself: on a host whose clock is not the TSC",
)];

/// Bytes from files, sockets and TAPs.
const READS: &[Rule] = &[
    #[cfg(not(target_env = "musl"))]
    Rule::new(call!(SYS_preadv2), &[], "reads from the back end"),
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

const DISK: &[Rule] = &[
    Rule::new(call!(SYS_fdatasync), &[], "flushes"),
    Rule::new(call!(SYS_fallocate), &[], "discards, and writes zeroes"),
];

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

const STREAMS: &[Rule] = &[
    Rule::new(call!(SYS_shutdown), &[], "the guest has closed a direction"),
    Rule::new(call!(SYS_close), &[], "a connection is over"),
];

const BROKER: &[Rule] = &[
    Rule::new(call!(SYS_accept4), &[], "a program of the host's connects to the guest"),
    Rule::new(call!(SYS_socket), &[Arg::is(0, bits(libc::AF_UNIX))], "to reach a program of the host's"),
    Rule::new(
        call!(SYS_connect),
        &[],
        "as above; all sockets that the thread can have are of the Unix family",
    ),
    Rule::new(call!(SYS_close), &[], "a client that is refused, a program that cannot be reached"),
];

const CONSOLE: &[Rule] = &[Rule::new(call!(SYS_poll), &[], "waits for output of the guest, and for input")];

/// What the libraries below us call and can do without. None of it reaches the kernel.
pub(crate) const REFUSALS: &[Refusal] = &[
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
];

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
