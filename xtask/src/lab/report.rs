//! What the lab's second serial port says: the kernel's messages and, at the end, the program's exit code.

/// `init.sh` writes it, in a line of its own and more than once, since the kernel may write into the middle of a line.
const MARKER: &str = "FIRECREST-LAB-EXIT-CODE=";

/// `init.sh` writes it once the program's serial port is ready, more than once as well.
const STARTED: &str = "FIRECREST-LAB-STARTED";

/// `init.sh` writes it every few seconds.
const ALIVE: &str = "FIRECREST-LAB-ALIVE";

/// Whether the program's serial port takes input.
pub fn is_started(log: &str) -> bool {
    log.contains(STARTED)
}

/// The exit code the lab's init reported, if it came that far.
pub fn exit_code(log: &str) -> Option<u8> {
    log.lines().rev().find_map(|line| {
        // Only a line that is whole counts: `=1` could be the beginning of `=127`.
        let value = &line[line.find(MARKER)? + MARKER.len()..];
        value.trim_end().strip_suffix(';')?.parse().ok()
    })
}

/// The last lines of a log.
pub fn tail(log: &str, lines: usize) -> String {
    let says_something = |line: &&str| !line.is_empty() && !line.contains(ALIVE);
    let all: Vec<_> = log.lines().map(str::trim_end).filter(says_something).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_found_among_messages() {
        let log = "[    0.1] noise\r\nFIRECREST-LAB-EXIT-CODE=17;\r\n[    9.9] reboot: Power down\r\n";
        assert_eq!(exit_code(log), Some(17));
    }

    #[test]
    fn a_line_the_kernel_wrote_into_does_not_count() {
        let log = "FIRECREST-LAB-EX[    9.9] kvm: word\r\nIT-CODE=1;\r\nFIRECREST-LAB-EXIT-CODE=1[    9.9] kvm\r\n\
                   27;\r\n[   10.0] x FIRECREST-LAB-EXIT-CODE=127;\r\n";
        assert_eq!(exit_code(log), Some(127));
    }

    #[test]
    fn no_exit_code_is_none() {
        assert_eq!(exit_code("Kernel panic - not syncing\n"), None);
        assert_eq!(exit_code("FIRECREST-LAB-EXIT-CODE="), None);
        assert_eq!(exit_code("FIRECREST-LAB-EXIT-CODE=1"), None);
    }

    #[test]
    fn tails() {
        assert_eq!(tail("a\r\n\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 5), "a");
        assert_eq!(tail("a\nFIRECREST-LAB-ALIVE\n", 5), "a");
    }
}
