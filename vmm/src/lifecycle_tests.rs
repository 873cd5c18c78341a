use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A stand-in for a vCPU thread: it polls its checkpoint instead of being kicked out of `KVM_RUN`.
fn vcpu(life: &Arc<Lifecycle>, rounds: &Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    let (life, rounds) = (Arc::clone(life), Arc::clone(rounds));
    thread::spawn(move || {
        while life.checkpoint(|| ()) == Next::Run {
            rounds.fetch_add(1, Ordering::Relaxed);
            thread::yield_now();
        }
        life.retire();
    })
}

#[test]
fn pause_waits_until_nothing_runs_and_resume_lets_it_go_on() {
    let (life, rounds) =
        (Arc::new(Lifecycle::new(3, libc::SIGRTMIN()).unwrap()), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..3).map(|_| vcpu(&life, &rounds)).collect();
    for _ in 0..50 {
        assert!(life.pause());
        assert!(life.pause(), "pausing twice is pausing once");
        let seen = rounds.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
        assert_eq!(rounds.load(Ordering::Relaxed), seen, "nothing runs");
        assert!(life.resume());
        while rounds.load(Ordering::Relaxed) == seen {
            thread::yield_now();
        }
    }
    life.end(Ok(Exit::Stopped));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn the_first_end_counts_and_wakes_everybody() {
    let life = Arc::new(Lifecycle::new(1, libc::SIGRTMIN()).unwrap());
    let rounds = Arc::new(AtomicUsize::new(0));
    let paused = vcpu(&life, &rounds);
    assert!(life.pause());
    let waiting = thread::spawn({
        let life = Arc::clone(&life);
        move || life.wait()
    });
    assert!(!life.ended());
    life.end(Ok(Exit::PowerOff));
    life.end(Ok(Exit::Stopped));
    paused.join().unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(Exit::PowerOff));
    assert_eq!(life.wait(), Ok(Exit::PowerOff), "it can be asked again");
    assert!(life.ended() && !life.pause() && !life.resume());
}

#[test]
fn pause_returns_when_the_run_ends_instead() {
    let life = Arc::new(Lifecycle::new(2, libc::SIGRTMIN()).unwrap());
    let rounds = Arc::new(AtomicUsize::new(0));
    let one = vcpu(&life, &rounds);
    // vCPU 1 never comes to its checkpoint.
    let pausing = thread::spawn({
        let life = Arc::clone(&life);
        move || life.pause()
    });
    thread::sleep(Duration::from_millis(5));
    life.end(Ok(Exit::Stopped));
    assert!(!pausing.join().unwrap());
    one.join().unwrap();
}

#[test]
fn a_thread_that_has_left_is_not_waited_for() {
    let life = Lifecycle::new(2, libc::SIGRTMIN()).unwrap();
    life.retire();
    life.retire();
    assert!(life.pause());
}
