//! What the fuzz targets share with the crates' own tests: kernels to start from, and what must hold.

#[path = "../../boot/tests/support/invariants.rs"]
pub mod invariants;
#[path = "../../boot/tests/support/kernels.rs"]
pub mod kernels;

pub mod backing;
