//! The network card (VIRTIO 1.2, section 5.1) on a TAP interface.
//!
//! - [`Net`] is what a caller says; `build` opens the TAP and makes the device of it.
//! - `worker` is one pair of queues on its thread: what it waits for, and whose turn it is; `turn` is what a turn is.
//! - `receive` and `transmit` are the two directions: each frame is one system call, between the TAP and the
//!   driver's buffers.
//! - `control` is the control queue: how many pairs are in use; `throttle` is a direction's rate limit.
//! - `features` is what is offered, and what of it the kernel is told; `tap` is the TAP's ioctls.
//!
//! A frame begins with a header of 12 bytes (section 5.1.6) that the kernel reads and writes itself: checksum
//! and segmentation offloads are between it and the driver. What a driver says there is checked by the kernel.
//!
//! Nothing here spins. A direction that cannot go on waits for what it lacks: received frames stay in the TAP
//! while the driver gives no buffers; a frame that the TAP does not take stays in its chain until it does.
//!
//! | threat | answer |
//! |---|---|
//! | a frame without a whole header, or longer than a frame can be | dropped and counted, before any system call |
//! | a header that is not true | the kernel refuses it: dropped and counted |
//! | receive buffers of no length, too short, or too few for a frame | the frame is dropped when no more buffers can come, and counted |
//! | no receive buffers at all | the TAP is not read, and not waited for |
//! | kicks, frames or commands without end | a turn ends after as many chains as the queue has entries |
//! | control commands that are short, unknown or out of range | answered with an error |
//! | changing the number of pairs in a loop (each change holds up the host's network stack) | refused above some changes a second |
//! | features that need others which were not accepted | not used |
//! | the TAP is down, or deleted | frames are dropped and counted; when it is deleted the link goes down |

mod control;
#[cfg(any(test, feature = "test-utils"))]
mod fake;
mod features;
mod receive;
mod spec;
mod tap;
mod transmit;
mod turn;
mod worker;

#[cfg(any(test, feature = "test-utils"))]
pub use fake::fake;
pub use spec::{Net, NetError};

/// Bytes of the header in front of each frame.
const HEADER_LEN: usize = 12;
/// Where in the header the flags are (one byte).
const HEADER_FLAGS: usize = 0;
/// Where in the header is said in how many chains the frame lies.
const HEADER_NUM_BUFFERS: usize = 10;
/// The addresses and the type in front of a packet, with a VLAN tag.
const LINK_HEADER_LEN: usize = 18;
/// The longest packet: what the length of an IP packet can say.
const MAX_PACKET: usize = 65_535;
/// The longest frame, with its header.
const MAX_FRAME: usize = HEADER_LEN + LINK_HEADER_LEN + MAX_PACKET;

/// Chains between two looks of the other side at a used ring.
const BATCH: u16 = 16;

/// One for each direction.
#[derive(Clone, Copy, Debug, Default)]
struct Directions<T> {
    receive: T,
    transmit: T,
}

impl<T> Directions<T> {
    fn map<U>(self, mut change: impl FnMut(T) -> U) -> Directions<U> {
        Directions { receive: change(self.receive), transmit: change(self.transmit) }
    }
}

/// Why a direction does not go on, and so what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The driver, to make chains available.
    Driver,
    /// The TAP, to have a frame or to take one.
    Tap,
    /// Its next turn: it has done enough for this one.
    Turn,
    /// The rate limit.
    Clock,
    /// Nothing: the TAP is gone.
    Gone,
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tap_tests;
#[cfg(test)]
mod tests;
