//! What the queues of a card have in common: each works in turns, so that none keeps the others waiting.

use super::{BATCH, Wait};
use crate::virtio::{Broken, Queue};

/// A queue that is started: a direction of a pair, or the control queue.
pub(super) trait Side {
    /// The queue that it works on.
    fn queue(&mut self) -> &mut Queue;

    /// The queue, as if nothing had been taken that is not completed.
    fn stop(self) -> Queue;
}

/// A side, if it is started, and what it waits for.
pub(super) type Started<T> = Option<(T, Wait)>;

/// Takes steps until one says what to wait for, as many as the queue has entries at most.
pub(super) fn turn<T: Side>(
    side: &mut T,
    mut step: impl FnMut(&mut T) -> Result<Option<Wait>, Broken>,
) -> Result<Wait, Broken> {
    side.queue().disable_kicks()?;
    let mut wait = None;
    for count in 1..=side.queue().size() {
        wait = step(side)?;
        if wait.is_some() {
            break;
        }
        if count.is_multiple_of(BATCH) {
            side.queue().publish()?;
        }
    }
    side.queue().publish()?;
    Ok(wait.unwrap_or(Wait::Turn))
}

/// There are too few chains; `None` where the driver has just given more.
pub(super) fn starve(queue: &mut Queue) -> Result<Option<Wait>, Broken> {
    if queue.enable_kicks()? {
        queue.disable_kicks()?;
        return Ok(None);
    }
    Ok(Some(Wait::Driver))
}

/// Whether a side is started and waits for `wait`.
pub(super) fn waits<T>(side: &Started<T>, wait: Wait) -> bool {
    side.as_ref().is_some_and(|(_, now)| *now == wait)
}

/// Whether a side waits for `wait` and has the queue of this index, or any where it is `None`.
pub(super) fn is_meant<T: Side>(side: &mut Started<T>, wait: Wait, index: Option<u16>) -> bool {
    let is = |queue: &Queue| index.is_none_or(|index| queue.index() == index);
    waits(side, wait) && side.as_mut().is_some_and(|(side, _)| is(side.queue()))
}

/// Stops a side that has the queue of this index, and gives that back.
pub(super) fn stop<T: Side>(side: &mut Started<T>, index: u16) -> Option<Queue> {
    side.take_if(|(side, _)| side.queue().index() == index).map(|(side, _)| side.stop())
}

/// Counts that a side is called for something else than a kick.
pub(super) fn count_wake_up<T: Side>(side: &mut Started<T>) {
    if let Some((side, _)) = side {
        side.queue().stats().kicks.add(1);
    }
}
