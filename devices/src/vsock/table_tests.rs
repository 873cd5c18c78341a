//! Places, ports, turns and windows.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;
use crate::vsock::packet::{Header, op};

fn add(table: &mut Table, guest_port: u32) -> Option<u32> {
    let key = table.allocate(guest_port);
    table.add(|serial, window| Connection::asking(3, key, serial, window))
}

#[test]
fn places_are_limited_and_used_again() {
    let mut table = Table::new(3);
    let slots: Vec<_> = (0..3).map(|port| add(&mut table, port).unwrap()).collect();
    assert!(table.is_full());
    assert_eq!(add(&mut table, 4), None);
    let removed = table.remove(slots[1]).unwrap();
    assert_eq!(table.find(removed.connection.key), None);
    assert!(table.remove(slots[1]).is_none());
    assert_eq!(add(&mut table, 5), Some(slots[1]));
    let serials: Vec<_> = slots.iter().map(|slot| table.get(*slot).unwrap().connection.serial).collect();
    assert_eq!((serials, table.next_serial()), (vec![0, 3, 2], 4));
}

#[test]
fn ports_are_not_given_twice() {
    let mut table = Table::new(10);
    // The guest chose one of ours.
    let request =
        Header { src_cid: 3, src_port: 7, dst_port: FIRST_PORT + 1, op: op::REQUEST, ..Header::default() };
    assert!(table.add(|serial, window| Connection::dialing(&request, serial, window)).is_some());
    assert!(table.add(|serial, window| Connection::dialing(&request, serial, window)).is_none());
    assert_eq!(table.allocate(7).host_port, FIRST_PORT);
    assert_eq!(table.allocate(7).host_port, FIRST_PORT + 2);
    table.next_port = LAST_PORT;
    assert_eq!(table.allocate(7).host_port, LAST_PORT);
    assert_eq!(table.allocate(8).host_port, FIRST_PORT);
    assert_eq!(table.allocate(8).host_port, FIRST_PORT + 1, "of another port of the guest's");
}

#[test]
fn turns_go_round() {
    let mut table = Table::new(3);
    let slots: Vec<_> = (0..3).map(|port| add(&mut table, port).unwrap()).collect();
    for _ in 0..2 {
        // Each has its request to send, and has one turn however often it is scheduled.
        slots.iter().for_each(|slot| table.schedule(*slot));
    }
    assert_eq!(table.next_turn(), Some(slots[0]));
    table.schedule(slots[0]);
    // One that is gone has no turn, and neither has who comes after it in its place.
    table.remove(slots[1]);
    assert_eq!(add(&mut table, 9), Some(slots[1]));
    assert_eq!(
        [table.next_turn(), table.next_turn(), table.next_turn()],
        [Some(slots[2]), Some(slots[0]), None]
    );
    table.get(slots[0]).unwrap().connection.take_control();
    table.schedule(slots[0]);
    assert!(!table.has_turn(), "nothing to send");
}

#[test]
fn windows_shrink_when_there_are_many() {
    let mut table = Table::new(4095);
    let slots: Vec<_> = (0..4095).map(|port| add(&mut table, port).unwrap()).collect();
    let promised = |table: &mut Table, slot| table.get(slot).unwrap().window;
    let total: u64 = slots.iter().map(|slot| u64::from(promised(&mut table, *slot))).sum();
    assert_eq!((promised(&mut table, slots[0]), promised(&mut table, slots[4094])), (WINDOW, SMALL_WINDOW));
    assert!(total <= WINDOWS + 4095 * u64::from(SMALL_WINDOW), "{total}");
    slots.iter().for_each(|slot| drop(table.remove(*slot)));
    assert_eq!(table.windows, 0);
    let slot = add(&mut table, 1).unwrap();
    assert_eq!(promised(&mut table, slot), WINDOW);
}
