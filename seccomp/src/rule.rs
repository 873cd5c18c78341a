//! What a list of system calls is written in.
//!
//! A [`Rule`] lets one call through, a [`Refusal`] answers one without its being made. A call that neither names
//! ends as the [`Jail`](crate::Jail) says.

use std::fmt;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Its number on this architecture.
    pub number: libc::c_long,
    /// Its name, as in section 2 of the manual.
    pub name: &'static str,
}

/// The system call of which `libc` has the number under this name.
macro_rules! call {
    ($number:ident) => {
        $crate::rule::Call { number: libc::$number, name: stringify!($number).split_at("SYS_".len()).1 }
    };
}
pub(crate) use call;

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Lets a call through where all of the conditions hold. Several rules of one call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The call.
    pub call: Call,
    /// What must hold of its arguments.
    pub when: &'static [Arg],
    /// What the thread needs it for.
    pub why: &'static str,
}

impl Rule {
    pub(crate) const fn new(call: Call, when: &'static [Arg], why: &'static str) -> Self {
        Self { call, when, why }
    }
}

/// Answers a call with an error. Nothing of what it asks for is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The call.
    pub call: Call,
    /// The error; with 0, the call returns 0.
    pub errno: i32,
    /// Who makes the call, and why that goes well.
    pub why: &'static str,
}

impl Refusal {
    pub(crate) const fn new(call: Call, errno: i32, why: &'static str) -> Self {
        Self { call, errno, why }
    }
}

/// A condition: these bits of an argument have this value. The low 32 bits of it count, in which all the
/// arguments that are looked at here have what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Which argument, from 0 on.
    pub index: u8,
    /// The bits that are looked at.
    pub mask: u32,
    /// What they have to be.
    pub value: Value,
}

/// A number to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// This one.
    Number(u32),
    /// The descriptor that vCPUs take their kicks from.
    Kicks,
}

impl Arg {
    /// The argument is `number`.
    pub(crate) const fn is(index: u8, number: u32) -> Self {
        Self { index, mask: u32::MAX, value: Value::Number(number) }
    }

    /// The argument is a number that is not known before it runs.
    pub(crate) const fn is_the(index: u8, value: Value) -> Self {
        Self { index, mask: u32::MAX, value }
    }

    /// Of the argument's bits in `mask`, those in `number` are set and no others.
    pub(crate) const fn has(index: u8, mask: u32, number: u32) -> Self {
        Self { index, mask, value: Value::Number(number) }
    }

    /// None of the argument's bits in `mask` is set.
    pub(crate) const fn lacks(index: u8, mask: u32) -> Self {
        Self::has(index, mask, 0)
    }
}
