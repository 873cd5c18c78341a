//! Reading what Rust's test harness prints.

/// What a number of tests came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Why tests were skipped, where they said so.
    pub reasons: Vec<String>,
    /// The names of tests that failed.
    pub failures: Vec<String>,
    /// The list of failures being read.
    list: Option<Vec<String>>,
}

impl Tally {
    pub fn ran(&self) -> usize {
        self.passed + self.failed
    }

    /// Something outside the tests' own counts that went wrong.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed += 1;
        self.failures.push(what.into());
    }

    /// Takes in the next line of output.
    pub fn line(&mut self, line: &str) {
        if let Some(reason) = skip_reason(line) {
            // The harness counts a test that returned early as passed; `result` corrects that.
            self.reasons.push(reason.to_owned());
            self.skipped += 1;
            return;
        }
        if line == "failures:" {
            // Printed twice: before the outputs of failed tests, and before the list of their names, which is the last.
            self.list = Some(Vec::new());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.result(counts);
        } else if let (Some(list), Some(name)) = (&mut self.list, line.strip_prefix("    ")) {
            list.push(name.to_owned());
        }
    }

    fn result(&mut self, counts: &str) {
        let count = |label: &str| -> usize {
            let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|word| *word == label);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.skipped += count("ignored");
        self.failures.extend(self.list.take().into_iter().flatten());
    }

    /// The counts with tests that skipped themselves taken from those that passed; once, at the end of all output.
    pub fn finished(mut self) -> Self {
        self.passed = self.passed.saturating_sub(self.reasons.len());
        self
    }
}

/// What follows `SKIPPED ` at the start of a line, or after `test NAME ... `, which the harness leaves unfinished while
/// a test prints.
fn skip_reason(line: &str) -> Option<&str> {
    if let Some(reason) = line.strip_prefix("SKIPPED ") {
        return Some(reason);
    }
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    (!name.contains(' ')).then_some(())?;
    rest.strip_prefix("SKIPPED ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        tally.finished()
    }

    #[test]
    fn counts_add_up_over_binaries() {
        let tally = tally(
            "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished\n\
             test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (7, 0, 1));
    }

    #[test]
    fn a_skipped_test_did_not_pass() {
        let tally = tally(
            "test a ... SKIPPED no TUN device\nok\nSKIPPED a: no root\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 0, 2));
        assert_eq!(tally.reasons, ["no TUN device", "a: no root"]);
    }

    #[test]
    fn failures_are_named_once() {
        let tally = tally(
            "test b ... FAILED\n\nfailures:\n\n---- b stdout ----\n    indented output\n\nfailures:\n    b\n    m::c\n\n\
             test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        );
        assert_eq!(tally.failed, 2);
        assert_eq!(tally.failures, ["b", "m::c"]);
    }

    #[test]
    fn other_words_do_not_count() {
        let tally = tally("I SKIPPED lunch\ntest of patience ... SKIPPED x\n    not a failure\n");
        assert_eq!(tally, Tally::default());
    }
}
