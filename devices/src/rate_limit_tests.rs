#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;
use proptest::prelude::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn bytes(size: u64, refill: Duration, burst: u64) -> RateLimit {
    RateLimit { bytes: Some(Bucket { size, refill, burst }), operations: None }
}

#[test]
fn no_limit_never_waits() {
    let now = Instant::now();
    let mut limiter = Limiter::new(RateLimit::default(), now).unwrap();
    limiter.charge(u64::MAX);
    assert_eq!(limiter.wait(now), None);
}

#[test]
fn a_bucket_empties_and_is_refilled_steadily() {
    let start = Instant::now();
    let mut limiter = Limiter::new(bytes(1000, ms(1000), 0), start).unwrap();
    limiter.charge(999);
    assert_eq!(limiter.wait(start), None, "one is left");
    limiter.charge(1);
    assert_eq!(limiter.wait(start), Some(ms(1)));
    assert_eq!(limiter.wait(start + Duration::from_micros(400)), Some(Duration::from_micros(600)));
    assert_eq!(limiter.wait(start + ms(1)), None);
    limiter.charge(11);
    assert_eq!(limiter.wait(start + ms(1)), Some(ms(11)), "ten of debt, and one to go on");
    assert_eq!(limiter.wait(start + ms(12)), None);
}

#[test]
fn a_burst_is_given_once_and_the_bucket_never_overflows() {
    let start = Instant::now();
    let mut limiter = Limiter::new(bytes(10, ms(10), 5), start).unwrap();
    // However long nothing happens.
    let later = start + ms(1_000_000);
    assert_eq!(limiter.wait(later), None);
    limiter.charge(15);
    assert_eq!(limiter.wait(later), Some(ms(1)));
    let much_later = later + ms(1_000_000);
    assert_eq!(limiter.wait(much_later), None);
    limiter.charge(10);
    assert_eq!(limiter.wait(much_later), Some(ms(1)), "ten and no more");
}

#[test]
fn the_stricter_limit_decides() {
    let start = Instant::now();
    let limit = RateLimit { bytes: Some(Bucket::per_second(1000)), operations: Some(Bucket::per_second(2)) };
    let mut limiter = Limiter::new(limit, start).unwrap();
    limiter.charge(1);
    assert_eq!(limiter.wait(start), None);
    limiter.charge(1);
    assert_eq!(limiter.wait(start), Some(ms(500)), "operations");
    limiter.charge(3000);
    assert_eq!(limiter.wait(start), Some(ms(2003)), "bytes");
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let zero = bytes(0, ms(1), 7);
    let error = Limiter::new(zero, Instant::now()).unwrap_err();
    assert_eq!(error.to_string(), "the limit of bytes lets 0 pass in 1ms: neither may be zero");
    let timeless = RateLimit {
        operations: Some(Bucket { size: 1, refill: Duration::ZERO, burst: 0 }),
        ..RateLimit::default()
    };
    assert_eq!(Limiter::new(timeless, Instant::now()).unwrap_err().what, "operations");
}

proptest! {
    /// Whoever waits as long as told passes then; and what passes in all keeps to the limit.
    #[test]
    fn waiting_is_enough_and_the_rate_holds(
        size in 1u64..1 << 40,
        refill in 1u64..1 << 36,
        burst in 0u64..1 << 40,
        operations in prop::collection::vec((0u64..1 << 41, 0u64..1 << 30), 1..40),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut limiter = Limiter::new(bytes(size, Duration::from_nanos(refill), burst), start).unwrap();
        let mut passed = 0u128;
        for (count, pause) in operations {
            now += Duration::from_nanos(pause);
            if let Some(wait) = limiter.wait(now) {
                now += wait;
                prop_assert_eq!(limiter.wait(now), None);
            }
            let refilled = (now - start).as_nanos() * u128::from(size) / u128::from(refill);
            prop_assert!(passed <= u128::from(size) + u128::from(burst) + refilled + (1 << 41), "{passed}");
            limiter.charge(count);
            passed += u128::from(count);
        }
    }

    /// Extremes of everything: no overflow.
    #[test]
    fn any_numbers(size in 1u64.., nanos in 1u64.., burst in 0u64.., steps in prop::collection::vec((0u64.., 0u64..1 << 62), 0..20)) {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(bytes(size, Duration::from_nanos(nanos), burst), now).unwrap();
        for (count, pause) in steps {
            limiter.charge(count);
            let later = now.checked_add(Duration::from_nanos(pause)).unwrap_or(now);
            prop_assert!(limiter.wait(later) != Some(Duration::ZERO));
            now = later;
        }
    }
}
