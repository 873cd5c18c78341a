use super::*;
use std::fs;
use std::sync::mpsc;

#[test]
fn a_return_is_reported() {
    let (tx, rx) = mpsc::channel();
    let thread = spawn("fc-test", || (), move |end| tx.send(end).unwrap()).unwrap();
    assert_eq!(rx.recv().unwrap(), End::Returned);
    thread.join().unwrap();
}

#[test]
fn a_panic_is_caught_and_reported_with_its_message() {
    for (text, formatted) in [("plain", false), ("formatted 7", true)] {
        let (tx, rx) = mpsc::channel();
        let body = move || if formatted { panic!("formatted {}", 7) } else { panic!("plain") };
        let thread = spawn("fc-test", body, move |end| tx.send(end).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap(), End::Panicked(text.to_owned()));
        assert!(thread.join().is_ok(), "the panic did not leave the thread");
    }
}

#[test]
fn the_thread_has_its_name_and_every_signal_blocked() {
    let (tx, rx) = mpsc::channel();
    let body = move || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        tx.send(status).unwrap();
    };
    spawn("fc-name", body, |_| ()).unwrap().join().unwrap();
    let status = rx.recv().unwrap();
    assert!(status.contains("Name:\tfc-name\n"), "{status}");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    // SIGKILL (9) and SIGSTOP (19) cannot be blocked; libc keeps its two internal ones (32, 33) open.
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    let open = !blocked;
    assert_eq!(open & !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32), 0, "open signals: {open:#x}");
}

#[test]
fn the_callers_mask_is_untouched() {
    let mask = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
    };
    let before = mask();
    spawn("fc-test", || (), |_| ()).unwrap().join().unwrap();
    assert_eq!(mask(), before);
}
