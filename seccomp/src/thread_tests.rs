use super::*;
use crate::{Filter, Jail, Role};
use std::fs;
use std::sync::mpsc::{self, Sender};

/// Work that is a closure.
struct Closure<F>(Option<F>);

impl<F: FnOnce() + Send + 'static> Work for Closure<F> {
    fn run(&mut self) {
        self.0.take().unwrap()();
    }
}

fn closure<F: FnOnce() + Send + 'static>(body: F) -> Closure<F> {
    Closure(Some(body))
}

#[test]
fn a_return_is_reported() {
    let (tx, rx) = mpsc::channel();
    let thread =
        spawn("fc-test", |_| Ok(Filter::none()), closure(|| ()), move |end| tx.send(end).unwrap()).unwrap();
    assert_eq!(rx.recv().unwrap(), End::Returned);
    thread.join().unwrap();
}

#[test]
fn a_panic_is_caught_and_reported_with_its_message() {
    for (text, formatted) in [("plain", false), ("formatted 7", true)] {
        let (tx, rx) = mpsc::channel();
        let body = move || if formatted { panic!("formatted {}", 7) } else { panic!("plain") };
        let thread =
            spawn("fc-test", |_| Ok(Filter::none()), closure(body), move |end| tx.send(end).unwrap())
                .unwrap();
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
    spawn("fc-name", |_| Ok(Filter::none()), closure(body), |_| ()).unwrap().join().unwrap();
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
    spawn("fc-test", |_| Ok(Filter::none()), closure(|| ()), |_| ()).unwrap().join().unwrap();
    assert_eq!(mask(), before);
}

/// Where the steps of a thread's life happen, by what its filter lets it find out.
struct Steps(Sender<(&'static str, bool)>);

/// Whether the calling thread has a filter: it can then not ask for one of its own rights.
fn is_jailed() -> bool {
    // SAFETY: takes nothing and writes nothing. It is refused, and answers 0, where there is a filter.
    unsafe { libc::syscall(libc::SYS_gettid) == 0 }
}

impl Work for Steps {
    fn prepare(&mut self) {
        self.0.send(("prepare", is_jailed())).unwrap();
    }

    fn run(&mut self) {
        self.0.send(("run", is_jailed())).unwrap();
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.send(("drop", is_jailed())).unwrap();
    }
}

#[test]
fn the_filter_is_on_from_the_work_to_the_report_and_the_joiner_has_the_rest() {
    for role in Role::ALL {
        let filter = Jail::enforce().filter(role, -1).unwrap();
        let (tx, rx) = mpsc::channel();
        let report = tx.clone();
        let report = move |_| report.send(("report", is_jailed())).unwrap();
        drop(spawn("fc-test", |_| Ok(filter), Steps(tx), report).unwrap().join().unwrap());
        let steps: Vec<_> = rx.into_iter().collect();
        assert_eq!(steps, [("prepare", false), ("run", true), ("report", true), ("drop", false)]);
        assert!(!is_jailed(), "the thread that starts others has no filter");
    }
}
