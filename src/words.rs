//! Options made of words, as `--block path=FILE,ro`.

use std::str::FromStr;

use lexopt::Error;

/// The words of one option, each `key` or `key=value`, separated by commas.
pub struct Words<'a> {
    /// The option's name.
    pub option: &'static str,
    /// All of it.
    pub text: &'a str,
}

impl<'a> Words<'a> {
    pub fn each(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.text.split(',').map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    pub fn error(&self, what: &str) -> Error {
        Error::Custom(format!("--{} {}: {what}", self.option, self.text).into())
    }

    pub fn unknown(&self, key: &str) -> Error {
        self.error(&format!("there is no `{key}`"))
    }

    pub fn number<T: FromStr>(&self, key: &str, value: &str) -> Result<T, Error> {
        value.parse().map_err(|_| self.error(&format!("{key}: `{value}` is not a number it can take")))
    }

    /// The value that a word must have.
    pub fn value(&self, key: &str, value: &'a str) -> Result<&'a str, Error> {
        if value.is_empty() { Err(self.error(&format!("{key} needs a value"))) } else { Ok(value) }
    }

    pub fn one_of<T>(&self, key: &str, value: &str, known: [(&str, T); 2]) -> Result<T, Error> {
        let names = known.each_ref().map(|(name, _)| *name).join(" or ");
        let found = known.into_iter().find(|(name, _)| *name == value);
        found.map(|(_, known)| known).ok_or_else(|| self.error(&format!("{key}: give {names}")))
    }
}
