//! What every thread needs for itself is needed: without the rule, what the standard library and the C library do for
//! a thread ends the process. (What a thread needs for its work is shown where the work is: `devices/src/jail_tests.rs`,
//! `tests/tiny_jail.rs`.)
//!
//! Each is tried in a process of its own: this test's program, started again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use firecrest_seccomp::{Filter, Jail, Role, Rule, Work, spawn};

const ATTEMPT: &str = "FIRECREST_TEST_ATTEMPT";
const HEAP: &str = "FIRECREST_TEST_HEAP";

struct Closure<F>(Option<F>);

impl<F: FnOnce() + Send + 'static> Work for Closure<F> {
    fn run(&mut self) {
        self.0.take().unwrap()();
    }
}

fn run(filter: &Filter, body: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    let filter = filter.clone();
    let thread = spawn("fc-test", |_| Ok(filter), Closure(Some(body)), |_| ()).unwrap();
    std::thread::spawn(move || drop(thread.join().unwrap()))
}

/// Two futexes of the C library: a lock that is held for a while.
struct PthreadMutex(std::cell::UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is for use by several threads.
unsafe impl Sync for PthreadMutex {}
// SAFETY: as above; it is not moved once it is used.
unsafe impl Send for PthreadMutex {}

impl PthreadMutex {
    fn lock(&self) {
        // SAFETY: initialised, and alive as long as `self`.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.get()) }, 0);
    }

    fn unlock(&self) {
        // SAFETY: as above; the caller has locked it.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.0.get()) }, 0);
    }
}

/// What makes a call of this name, and how often it needs more than one thread to do so.
fn workload(rule: &Rule, filter: &Filter) {
    let body: Box<dyn FnOnce() + Send> = match (rule.call.name, futex_operation(rule)) {
        ("write", _) => Box::new(|| std::io::Write::write_all(&mut std::io::stderr(), b".").unwrap()),
        ("mmap" | "munmap", _) => Box::new(|| drop(black_box(vec![1_u8; 4 << 20]))),
        // While the thread waits, the process changes its user.
        ("getpid" | "rt_sigreturn", _) => {
            let (tx, rx) = mpsc::channel();
            let (jailed, is_jailed) = mpsc::channel();
            let thread = run(filter, move || {
                jailed.send(()).unwrap();
                rx.recv().unwrap();
            });
            is_jailed.recv().unwrap();
            change_user();
            tx.send(()).unwrap();
            return thread.join().unwrap();
        }
        ("exit", _) => Box::new(|| ()),
        ("futex", Some(libc::FUTEX_WAIT_BITSET)) => {
            let (tx, rx) = mpsc::channel();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                tx.send(()).unwrap();
            });
            Box::new(move || rx.recv().unwrap())
        }
        ("futex", Some(libc::FUTEX_WAKE)) => {
            let (tx, rx) = mpsc::channel();
            let receiver = std::thread::spawn(move || rx.recv().unwrap());
            std::thread::sleep(Duration::from_millis(50));
            Box::new(move || {
                tx.send(()).unwrap();
                drop(receiver);
            })
        }
        ("futex", Some(libc::FUTEX_WAIT)) => {
            let mutex = Arc::new(PthreadMutex(std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)));
            let held = Arc::new(AtomicBool::new(false));
            let (theirs, locked) = (Arc::clone(&mutex), Arc::clone(&held));
            std::thread::spawn(move || {
                theirs.lock();
                locked.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(100));
                theirs.unlock();
            });
            while !held.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Box::new(move || {
                mutex.lock();
                mutex.unlock();
            })
        }
        (name, _) => panic!("{name} has no workload"),
    };
    run(filter, body).join().unwrap();
}

/// Becomes who it is, by the C library: it has every thread of the process do so.
fn change_user() {
    // SAFETY: takes numbers only.
    unsafe {
        let (user, group) = (libc::getuid(), libc::getgid());
        assert_eq!(libc::setresgid(group, group, group), 0);
        assert_eq!(libc::setresuid(user, user, user), 0);
        if user == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        }
    }
}

fn futex_operation(rule: &Rule) -> Option<i32> {
    let operation = rule.when.iter().find(|arg| arg.index == 1)?;
    match operation.value {
        firecrest_seccomp::Value::Number(number) => i32::try_from(number).ok(),
        _ => None,
    }
}

fn attempt(role: Role, place: usize, without: bool) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "one_attempt", "--nocapture"]).env_remove("RUST_BACKTRACE");
    command.env(ATTEMPT, format!("{role}/{place}/{without}")).output().unwrap().status
}

#[test]
fn one_attempt() {
    let Ok(what) = std::env::var(ATTEMPT) else { return };
    let words: Vec<_> = what.split('/').collect();
    let [role, place, without] = words[..] else { panic!("{what}") };
    let role = Role::ALL.into_iter().find(|known| known.to_string() == role).unwrap();
    let place = place.parse().unwrap();
    let jail = if without == "true" { Jail::enforce().without(role, place) } else { Jail::enforce() };
    workload(role.rules().nth(place).unwrap(), &jail.filter(role, -1).unwrap());
}

#[test]
fn what_every_thread_needs_is_needed() {
    const OF_ANY_THREAD: [&str; 7] = ["write", "futex", "mmap", "munmap", "exit", "getpid", "rt_sigreturn"];
    for role in Role::ALL {
        let rules = role.rules().enumerate();
        for (place, rule) in rules.filter(|(_, rule)| OF_ANY_THREAD.contains(&rule.call.name)) {
            let with = attempt(role, place, false);
            assert!(with.success(), "{role}: {} ({}): {with}", rule.call, rule.why);
            let without = attempt(role, place, true);
            assert_eq!(
                without.signal(),
                Some(libc::SIGSYS),
                "{role}: {} ({}) is not needed: {without}",
                rule.call,
                rule.why
            );
        }
    }
}

/// The process that allocates in jails: it does nothing where that was not asked for.
#[test]
fn one_heap() {
    if std::env::var_os(HEAP).is_none() {
        return;
    }
    let pieces = |bytes: usize| (0..2000).map(|_| vec![1_u8; bytes]).collect::<Vec<_>>();
    for role in Role::ALL {
        let filter = Jail::enforce().filter(role, -1).unwrap();
        for bytes in [40, 4000, 200_000] {
            run(&filter, move || drop(black_box(pieces(bytes)))).join().unwrap();
            // The heap that they may have in common is as good as before.
            drop(black_box(pieces(bytes)));
        }
    }
}

/// An allocator that is not given what it asks for first finds memory all the same: in a heap of the thread's own, and
/// in the main one, which the threads of a process with many of them share.
#[test]
fn a_heap_that_cannot_grow_is_done_without() {
    for arenas in ["1", "64"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_heap", "--nocapture"])
            .env(HEAP, "")
            .env("MALLOC_ARENA_MAX", arenas)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arenas} heaps: {output:?}");
    }
}
