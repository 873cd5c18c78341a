use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

type Routes = Vec<(u8, Message)>;

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Routes>>>);

impl Router for Recorder {
    fn set_routes(&mut self, routes: &[(u8, Message)]) -> io::Result<()> {
        self.0.lock().unwrap().push(routes.to_vec());
        Ok(())
    }
}

fn select(apic: &mut IoApic<Recorder>, register: u8) {
    apic.write(REGISTER_SELECT, &u32::from(register).to_le_bytes()).unwrap();
}

fn set(apic: &mut IoApic<Recorder>, register: u8, value: u32) {
    select(apic, register);
    apic.write(WINDOW, &value.to_le_bytes()).unwrap();
}

fn get(apic: &mut IoApic<Recorder>, register: u8) -> u32 {
    select(apic, register);
    let mut data = [0xaa; 4];
    apic.read(WINDOW, &mut data);
    u32::from_le_bytes(data)
}

fn device() -> (IoApic<Recorder>, Recorder) {
    let recorder = Recorder::default();
    (IoApic::new(recorder.clone(), 24), recorder)
}

#[test]
fn reset_state() {
    let (mut apic, _) = device();
    assert_eq!(get(&mut apic, 0x00), 0);
    assert_eq!(get(&mut apic, 0x01), 0x0017_0011, "24 entries, version 0x11");
    for pin in 0..24 {
        assert_eq!(get(&mut apic, 0x10 + 2 * pin), 1 << 16, "pin {pin} is masked");
        assert_eq!(get(&mut apic, 0x11 + 2 * pin), 0);
    }
    assert_eq!(get(&mut apic, 0x40), 0, "past the table");
}

#[test]
fn it_has_as_many_pins_as_it_is_given() {
    for (given, pins) in [(0, 1u8), (5, 5), (25, 25), (255, 25)] {
        let mut apic = IoApic::new(Recorder::default(), given);
        assert_eq!(get(&mut apic, 0x01), 0x11 | u32::from(pins - 1) << 16);
        let last = 0x10 + 2 * (pins - 1);
        set(&mut apic, last, 0x31);
        set(&mut apic, last + 2, 0x31);
        assert_eq!((get(&mut apic, last), get(&mut apic, last + 2)), (0x31, 0), "{given} given");
    }
}

#[test]
fn unmasking_makes_a_route_and_masking_takes_it_away() {
    let (mut apic, recorder) = device();
    set(&mut apic, 0x10 + 8 + 1, 3 << 24);
    assert!(recorder.0.lock().unwrap().is_empty(), "still masked: nothing to tell");
    set(&mut apic, 0x10 + 8, 0x31);
    let route = (4, Message { address: 0xfee0_3000, data: 0x31 });
    set(&mut apic, 0x10 + 10, 0x0941);
    let second = (5, Message { address: 0xfee0_0004, data: 0x141 });
    set(&mut apic, 0x10 + 8, 1 << 16 | 0x31);
    assert_eq!(*recorder.0.lock().unwrap(), [vec![route], vec![route, second], vec![second]]);
}

#[test]
fn a_write_that_changes_no_route_calls_nobody() {
    let (mut apic, recorder) = device();
    for pin in 0..24 {
        set(&mut apic, 0x10 + 2 * pin, 1 << 16 | u32::from(pin));
        set(&mut apic, 0x11 + 2 * pin, 0x0100_0000);
    }
    set(&mut apic, 0x10, 0x31);
    set(&mut apic, 0x10, 0x31);
    // Level-triggered, active low: to a message the same, as every pin is an edge.
    set(&mut apic, 0x10, 0xa031);
    assert_eq!(recorder.0.lock().unwrap().len(), 1);
    assert_eq!(get(&mut apic, 0x10), 0xa031, "yet the guest reads back what it wrote");
}

#[test]
fn read_only_bits_stay_clear_and_the_id_keeps_its_four() {
    let (mut apic, _) = device();
    set(&mut apic, 0x10, u32::MAX);
    assert_eq!(get(&mut apic, 0x10), !(1 << 12 | 1 << 14));
    set(&mut apic, 0x00, u32::MAX);
    assert_eq!(get(&mut apic, 0x00), 0x0f00_0000);
    set(&mut apic, 0x01, 0);
    assert_eq!(get(&mut apic, 0x01), 0x0017_0011, "the version is not writable");
}

#[test]
fn odd_accesses_are_harmless() {
    let (mut apic, recorder) = device();
    select(&mut apic, 0x10);
    for size in [0, 1, 2, 3, 8] {
        apic.write(WINDOW, &vec![0; size]).unwrap();
        let mut data = vec![0xaa; size];
        apic.read(WINDOW, &mut data);
        let whole = (1u64 << 16).to_le_bytes();
        assert_eq!(data, whole[..size], "the low bytes of the register, zero beyond");
    }
    for offset in [1, 4, 0x0f, 0x14, 0x40, 0xfff] {
        apic.write(offset, &[0xff; 4]).unwrap();
        let mut data = [0xaa; 4];
        apic.read(offset, &mut data);
        assert_eq!(data, [0; 4]);
    }
    assert!(recorder.0.lock().unwrap().is_empty());
}

#[test]
fn a_router_that_fails_is_reported() {
    struct Failing;
    impl Router for Failing {
        fn set_routes(&mut self, _: &[(u8, Message)]) -> io::Result<()> {
            Err(io::Error::other("no room"))
        }
    }
    let mut apic = IoApic::new(Failing, 24);
    apic.write(REGISTER_SELECT, &[0x10, 0, 0, 0]).unwrap();
    assert_eq!(apic.write(WINDOW, &[0x31, 0, 0, 0]).unwrap_err().to_string(), "no room");
}

proptest! {
    /// Whatever is written, the last routes told are those of the table.
    #[test]
    fn the_router_knows_the_table(writes in prop::collection::vec((0u8..0x48, any::<u32>()), 1..200)) {
        let (mut apic, recorder) = device();
        for (register, value) in writes {
            set(&mut apic, register, value);
        }
        let table: Vec<_> =
            (0..24).filter_map(|pin| message(apic.pin(pin)).map(|message| (pin, message))).collect();
        let told = recorder.0.lock().unwrap().last().cloned().unwrap_or_default();
        prop_assert_eq!(told, table);
    }
}
