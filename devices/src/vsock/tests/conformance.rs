//! What every device has to pass, and any bytes as a driver.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::testing::conformance::Subject;
use crate::testing::{BUFFERS, Driver, Seg, play};
use crate::virtio::Device;
use crate::vsock::packet::{HEADER_LEN, HOST_CID, Header, STREAM, op};
use crate::vsock::worker::{RX, TX};

const LEN: u32 = HEADER_LEN as u32;
/// Where somebody listens; nobody accepts what is dialled for the load.
const WORK: u32 = 52;
const LOAD: u32 = 53;

/// A device, and who it connects to.
#[derive(Default)]
struct Echo(Mutex<Option<(Place, [UnixListener; 2])>>);

fn header(op: u16, src_port: u32, dst_port: u32) -> Header {
    let (src_cid, dst_cid) = (CID.into(), HOST_CID);
    Header { src_cid, dst_cid, src_port, dst_port, kind: STREAM, op, buf_alloc: 4096, ..Header::default() }
}

impl Subject for Echo {
    fn device(&self) -> Device {
        let place = Place::new();
        let device = place.vsock().timeouts(short_timeouts()).build().unwrap();
        let listeners = [place.listen(WORK), place.listen(LOAD)];
        *self.0.lock().unwrap() = Some((place, listeners));
        device
    }

    /// A connection, and a word each way.
    fn work(&self, driver: &mut Driver) {
        let host = self.0.lock().unwrap();
        let (_, [listener, _]) = host.as_ref().unwrap();
        for slot in [0, 1] {
            driver.offer(RX, &[Seg::writable(BUFFERS + 0x1000 * slot, LEN + 100)]);
        }
        driver.kick(RX);
        let send = |driver: &mut Driver, header: Header, payload: &[u8]| {
            let at = BUFFERS + 0x3000;
            driver.put(at, &Header { len: payload.len() as u32, ..header }.bytes());
            driver.put(at + u64::from(LEN), payload);
            driver.request(TX, &[Seg::readable(at, LEN + payload.len() as u32)]);
        };
        let receive = |driver: &mut Driver, slot: u64| {
            let (_, written) = driver.wait_used(RX);
            let bytes = driver.get(BUFFERS + 0x1000 * slot, written as usize);
            let (header, payload) = bytes.split_first_chunk().unwrap();
            (Header::parse(header).op, payload.to_vec())
        };
        send(driver, header(op::REQUEST, 1, WORK), &[]);
        assert_eq!(receive(driver, 0).0, op::RESPONSE);
        let (mut host, _) = listener.accept().unwrap();
        send(driver, header(op::RW, 1, WORK), b"ping");
        let mut bytes = [0; 4];
        host.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ping");
        host.write_all(b"pong").unwrap();
        assert_eq!(receive(driver, 1), (op::RW, b"pong".to_vec()));
        send(driver, header(op::RST, 1, WORK), &[]);
        assert_eq!(host.read(&mut bytes).unwrap(), 0);
    }

    fn load(&self, driver: &mut Driver) {
        for slot in 0..200 {
            let (rx, tx) = (BUFFERS + 0x1000 * slot, BUFFERS + 0x20_0000 + 0x1000 * slot);
            driver.offer(RX, &[Seg::writable(rx, LEN + 100)]);
            let op = if slot < 50 { op::REQUEST } else { op::RW };
            driver.put(tx, &Header { len: 1000, ..header(op, slot as u32 % 50, LOAD) }.bytes());
            driver.offer(TX, &[Seg::readable(tx, LEN + 1000)]);
        }
        driver.kick(RX);
        driver.kick(TX);
    }

    fn busy_queue(&self) -> u16 {
        TX
    }
}

crate::conformance!(conforms, Echo::default());

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_script_is_survived(script in prop::collection::vec(any::<u8>(), 0..400)) {
        let place = Place::new();
        play(place.vsock().timeouts(short_timeouts()).build().unwrap(), &script);
    }
}
