//! What a process is told of a violation, where the embedder has chosen to be told: [`Jail::trap`](crate::Jail::trap).

use std::fmt;

/// Linux shows as many bytes of a thread's name.
const NAME_LEN: usize = 15;
/// `si_code` of a signal that a filter sent (`SYS_SECCOMP`).
const SENT_BY_FILTER: libc::c_int = 1;

/// A call that a thread of a VM may not make.
///
/// ```
/// use firecrest_seccomp::Violation;
///
/// extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
///     // SAFETY: the kernel passes the signal's information to a handler installed with SA_SIGINFO.
///     let violation = Violation::from_signal(unsafe { &*info });
///     // Report it, by what the thread's list has: `write` is on all of them. Then end the process, or return: the call
///     // has not been made, and its result is an error.
///     # let _ = violation;
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    name: [u8; NAME_LEN],
    /// The call's number, on the architecture that it was made by.
    pub call: i32,
}

/// `siginfo_t` of `SIGSYS`: the C library's has no names for these.
#[repr(C)]
struct Information {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}
const _: () = assert!(size_of::<Information>() <= size_of::<libc::siginfo_t>());

impl Violation {
    /// To be called by a handler of `SIGSYS`, which runs on the thread that made the call. `None` where the signal was
    /// sent by something else than a filter. It allocates nothing, locks nothing and makes no system call.
    #[must_use]
    pub fn from_signal(info: &libc::siginfo_t) -> Option<Self> {
        if info.si_signo != libc::SIGSYS || info.si_code != SENT_BY_FILTER {
            return None;
        }
        // SAFETY: `siginfo_t` is as long at least, aligned as strictly, and all of it is initialised; for this signal
        // and code the kernel has written these fields.
        #[allow(unsafe_code, reason = "a union that the C library does not describe")]
        let call = unsafe { (*(&raw const *info).cast::<Information>()).call };
        let mut name = [0; NAME_LEN];
        let thread = std::thread::current();
        let known = thread.name().unwrap_or_default().bytes();
        name.iter_mut().zip(known).for_each(|(to, from)| *to = from);
        Some(Self { name, call })
    }

    /// The name of the thread that made the call: `fc-vcpu0`. Empty where it has none.
    #[must_use]
    pub fn thread(&self) -> &str {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        str::from_utf8(self.name.get(..len).unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} made system call {}, which it may not", self.thread(), self.call)
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Violation").field("thread", &self.thread()).field("call", &self.call).finish()
    }
}
