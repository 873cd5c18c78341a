//! The few things every command's option parsing shares.

use std::str::FromStr;

use crate::error::{Error, Result};

/// The value of an option as a number, with the option's name in the error.
pub fn number<T: FromStr>(parser: &mut lexopt::Parser, option: &str) -> Result<T> {
    let value = parser.value()?;
    let text = value.to_string_lossy();
    text.parse().map_err(|_| Error::usage(format!("{option}: `{text}` is not a number it can take")))
}

/// For commands without options: prints the help when asked, refuses anything else. True when help was printed.
pub fn only_help(mut parser: lexopt::Parser, help: &str) -> Result<bool> {
    match parser.next()? {
        None => Ok(false),
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => {
            print!("{help}");
            Ok(true)
        }
        Some(other) => Err(other.unexpected().into()),
    }
}
