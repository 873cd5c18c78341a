//! What became of each level, and of all of them together.

use std::time::Instant;

use crate::error::Result;
use crate::libtest::Tally;

/// Levels that were run, in order.
#[derive(Default)]
pub struct Summary {
    levels: Vec<(String, Tally, u64)>,
}

impl Summary {
    /// Runs a level. What keeps it from running is a failure of that level, and the next one still gets its turn.
    pub fn run(&mut self, name: &str, level: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("\nxtask: === {name} ===");
        let started = Instant::now();
        let mut tally = Tally::default();
        let result = level(&mut tally);
        let mut tally = tally.finished();
        if let Err(error) = result {
            tally.fail(error.to_string());
        } else if tally.ran() == 0 {
            // Nothing ran: a mistake in what was selected must not look like success.
            tally.fail("no test ran");
        }
        self.levels.push((name.to_owned(), tally, started.elapsed().as_secs()));
    }

    /// Prints everything and returns the exit code.
    pub fn print(&self) -> u8 {
        println!("\nSummary");
        for (name, tally, seconds) in &self.levels {
            let Tally { passed, failed, skipped, .. } = tally;
            println!("  {name:<45} {passed:4} passed {failed:4} failed {skipped:4} skipped {seconds:5} s");
        }
        for (name, tally, _) in &self.levels {
            for reason in &tally.reasons {
                println!("  skipped in {name}: {reason}");
            }
            for failure in &tally.failures {
                println!("  FAILED in {name}: {failure}");
            }
        }
        let sum =
            |count: fn(&Tally) -> usize| self.levels.iter().map(|(_, tally, _)| count(tally)).sum::<usize>();
        let failed = sum(|tally| tally.failed);
        println!(
            "{} passed, {failed} failed, {} skipped",
            sum(|tally| tally.passed),
            sum(|tally| tally.skipped)
        );
        u8::from(failed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_level_without_tests_fails() {
        let mut summary = Summary::default();
        summary.run("empty", |_| Ok(()));
        assert_eq!(summary.print(), 1);
    }

    #[test]
    fn a_level_that_cannot_run_fails_and_the_next_runs() {
        let mut summary = Summary::default();
        summary.run("broken", |_| Err(Error::new("no")));
        summary.run("fine", |tally| {
            tally.passed += 1;
            Ok(())
        });
        assert_eq!(summary.levels.len(), 2);
        assert_eq!(summary.levels[1].1.passed, 1);
        assert_eq!(summary.print(), 1);
    }

    #[test]
    fn passing_is_success() {
        let mut summary = Summary::default();
        summary.run("fine", |tally| {
            tally.line("test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
            Ok(())
        });
        assert_eq!(summary.print(), 0);
    }
}
