//! A hostile driver of a disk of 1 MiB.

#![no_main]

use firecrest_devices::block::{Block, BlockEngine};
use firecrest_devices::testing::play;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    // The first byte chooses the engine: the same script may mean trouble for one of them alone.
    let Some((first, script)) = script.split_first() else { return };
    let engine = if first % 2 == 0 { BlockEngine::Sync } else { BlockEngine::IoUring };
    let file = firecrest_fuzz::backing::disk();
    let device = Block::file(&file).engine(engine).build().expect("the disk is ours");
    play(device, script);
});
