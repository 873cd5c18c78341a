use super::*;
use std::thread;

#[test]
fn it_tells_the_time_to_a_tick_and_never_goes_back() {
    let clock = Clock::new().unwrap();
    let mut last = clock.now();
    for wait in [0, 1, 7, 40, 0, 0, 3] {
        thread::sleep(Duration::from_millis(wait));
        let before = Instant::now();
        let now = clock.now();
        assert!(now >= last && now <= Instant::now());
        // How late it is can only be bounded by a tick: it was started a moment after its beginning.
        assert!(before.saturating_duration_since(now) < Duration::from_millis(3), "{before:?} {now:?}");
        last = now;
    }
}

#[test]
fn threads_that_read_it_at_once_lose_no_tick() {
    let clock = Clock::new().unwrap();
    let end = Instant::now() + Duration::from_millis(200);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = clock.now();
                while Instant::now() < end {
                    let now = clock.now();
                    assert!(now >= last);
                    last = now;
                }
            });
        }
    });
    let before = Instant::now();
    assert!(before.saturating_duration_since(clock.now()) < Duration::from_millis(3));
}
