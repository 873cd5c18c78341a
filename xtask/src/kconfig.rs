//! The kernel configuration fragment: what it asks for, and whether the kernel's own tools kept all of it.
//!
//! Kconfig drops what it does not know or what lacks a dependency without a word, so the result is checked.

/// The lines of a fragment that a finished configuration does not honour, as they stand in the fragment.
pub fn lost<'f>(fragment: &'f str, config: &str) -> Vec<&'f str> {
    requests(fragment).filter(|request| !request.honoured(config)).map(|request| request.line).collect()
}

struct Request<'f> {
    line: &'f str,
    option: &'f str,
    /// None: off.
    value: Option<&'f str>,
}

fn requests(fragment: &str) -> impl Iterator<Item = Request<'_>> {
    fragment.lines().filter_map(|line| {
        let line = line.trim();
        if let Some(option) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
            return option.starts_with("CONFIG_").then_some(Request { line, option, value: None });
        }
        let (option, value) = line.split_once('=')?;
        option.starts_with("CONFIG_").then_some(Request { line, option, value: Some(value) })
    })
}

impl Request<'_> {
    fn honoured(&self, config: &str) -> bool {
        let set = config.lines().find_map(|line| {
            let (option, value) = line.split_once('=')?;
            (option == self.option).then_some(value)
        });
        // An option whose dependencies are off does not appear at all, which is as good as "is not set".
        set == self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str =
        "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_CPUS=64\nCONFIG_NAME=\"x=y\"\nCONFIG_AB=y\n";

    #[test]
    fn what_survived_is_not_lost() {
        let fragment = "# words = not an option\nCONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_CPUS=64\n\
                        CONFIG_NAME=\"x=y\"\n# CONFIG_HIDDEN is not set\n";
        assert!(lost(fragment, CONFIG).is_empty());
    }

    #[test]
    fn what_did_not_survive_is_named() {
        let fragment = "CONFIG_B=y\nCONFIG_CPUS=32\n# CONFIG_A is not set\nCONFIG_GONE=y\n";
        assert_eq!(lost(fragment, CONFIG), fragment.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_longer_name_is_another_option() {
        assert_eq!(lost("# CONFIG_A is not set", "CONFIG_AB=y\n"), Vec::<&str>::new());
    }
}
