//! The kernel command line: the caller's bytes and a NUL, nothing of ours.

use crate::PlanError;

/// `cmdline` with its terminating NUL, if it has at most `limit` bytes and none of them is NUL.
pub(crate) fn terminated(cmdline: &[u8], limit: usize) -> Result<Vec<u8>, PlanError> {
    if cmdline.len() > limit {
        return Err(PlanError::CmdlineTooLong { len: cmdline.len(), limit });
    }
    if let Some(position) = cmdline.iter().position(|byte| *byte == 0) {
        return Err(PlanError::CmdlineNul { position });
    }
    Ok([cmdline, &[0]].concat())
}
