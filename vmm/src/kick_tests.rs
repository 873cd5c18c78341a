use super::*;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

fn block(signal: libc::c_int) {
    // SAFETY: an all-zero set is valid, and both calls read or write it alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()), 0);
    }
}

fn is_pending(signal: libc::c_int) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::sigpending(&raw mut set), 0);
        libc::sigismember(&raw const set, signal) == 1
    }
}

#[test]
fn a_kick_reaches_the_thread_it_is_aimed_at_and_is_taken_once() {
    for signal in [libc::SIGSTKFLT, libc::SIGRTMIN()] {
        let (kick, pending) = (Arc::new(Kick::new().unwrap()), Pending::new(signal).unwrap());
        block(signal);
        kick.send();
        assert!(!is_pending(signal), "it is aimed at nobody");
        kick.aim(signal).unwrap();
        // By another thread, as they come; each round as after a pause.
        for _ in 0..10_000 {
            let kick = Arc::clone(&kick);
            thread::scope(|scope| drop(scope.spawn(|| kick.send())));
            assert!(is_pending(signal));
            pending.take();
            assert!(!is_pending(signal));
            kick.clear();
        }
    }
}

#[test]
fn no_other_thread_is_reached_and_one_that_has_ended_is_no_stranger() {
    let signal = libc::SIGUSR2;
    block(signal);
    let kick = Arc::new(Kick::new().unwrap());
    let (ready, is_ready) = mpsc::channel();
    let (sent, is_sent) = mpsc::channel::<()>();
    let theirs = Arc::clone(&kick);
    let thread = thread::spawn(move || {
        theirs.aim(signal).unwrap();
        ready.send(()).unwrap();
        is_sent.recv().unwrap();
        is_pending(signal)
    });
    is_ready.recv().unwrap();
    kick.send();
    sent.send(()).unwrap();
    assert!(thread.join().unwrap());
    assert!(!is_pending(signal));
    kick.send();
    assert!(!is_pending(signal));
}
