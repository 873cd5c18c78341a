//! Hosts that cannot do what is asked for: told before any thread is started, and never by less being done.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::thread;

use firecrest_seccomp::{Jail, JailError, Role};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What asking for a filter gives on a host whose `seccomp` answers so.
fn on_a_host_that_answers(errno: libc::c_int, jail: Jail) -> Result<(), JailError> {
    let host = move || {
        let calls = [(libc::SYS_seccomp, vec![])].into();
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, arch).unwrap();
        // Of this thread alone.
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        jail.filter(Role::Vcpu, -1).map(drop)
    };
    thread::spawn(host).join().unwrap()
}

#[test]
fn a_kernel_without_seccomp_is_an_error_that_says_what_to_do() {
    for jail in [Jail::enforce(), Jail::trap(), Jail::log()] {
        let error = on_a_host_that_answers(libc::ENOSYS, jail).unwrap_err();
        assert!(matches!(error, JailError::NoSeccomp(_)), "{error:?}");
        assert!(error.to_string().contains("Jail::off()"), "{error}");
    }
    on_a_host_that_answers(libc::ENOSYS, Jail::off()).unwrap();
}

#[test]
fn a_kernel_that_cannot_end_a_violation_so_is_an_error_that_names_the_action() {
    for (jail, action) in [
        (Jail::enforce(), "SECCOMP_RET_KILL_PROCESS"),
        (Jail::trap(), "SECCOMP_RET_TRAP"),
        (Jail::log(), "SECCOMP_RET_LOG"),
    ] {
        let error = on_a_host_that_answers(libc::EOPNOTSUPP, jail).unwrap_err();
        assert!(error.to_string().contains(action), "{error}");
    }
}
