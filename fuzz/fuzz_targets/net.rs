//! A hostile driver of a network card, for which frames are waiting.

#![no_main]

use firecrest_devices::net::fake;
use firecrest_devices::testing::play;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    // The first byte chooses one pair of queues, or two and a control queue.
    let Some((first, script)) = script.split_first() else { return };
    let pairs = 1 + usize::from(first % 2);
    let (hosts, sockets): (Vec<_>, Vec<_>) = (0..pairs).map(|_| firecrest_fuzz::backing::frames()).unzip();
    play(fake(sockets).expect("the sockets are ours"), script);
    drop(hosts);
});
