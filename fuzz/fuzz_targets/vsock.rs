//! A hostile driver of a socket device, at whose other end nobody listens.

#![no_main]

use firecrest_devices::testing::play;
use firecrest_devices::vsock::Vsock;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    let socket = firecrest_fuzz::backing::socket();
    play(Vsock::unix(3, &socket).build().expect("the path is ours"), script);
});
