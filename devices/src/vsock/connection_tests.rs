//! A connection's rules, without sockets and queues.
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;

const WINDOW: u32 = 1000;
const KEY: Key = Key { guest_port: 5, host_port: 6 };

fn from_guest(op: u16) -> Header {
    Header {
        src_cid: 3,
        dst_cid: HOST_CID,
        src_port: KEY.guest_port,
        dst_port: KEY.host_port,
        kind: STREAM,
        op,
        buf_alloc: 100,
        ..Header::default()
    }
}

fn data(len: u32) -> Header {
    Header { len, ..from_guest(op::RW) }
}

fn shutdown(flags: u32) -> Header {
    Header { flags, ..from_guest(op::SHUTDOWN) }
}

fn open() -> Connection {
    let mut connection = Connection::dialing(&from_guest(op::REQUEST), 0, WINDOW);
    connection.dialed();
    assert_eq!(connection.take_control().unwrap().op, op::RESPONSE);
    connection
}

#[test]
fn each_side_can_begin() {
    let mut connection = Connection::dialing(&from_guest(op::REQUEST), 0, WINDOW);
    assert!(connection.is_dialing() && !connection.has_control() && !connection.wants_data());
    connection.dialed();
    let response = connection.take_control().unwrap();
    assert_eq!((response.op, response.buf_alloc, response.dst_cid), (op::RESPONSE, WINDOW, 3));
    assert_eq!((response.src_port, response.dst_port), (KEY.host_port, KEY.guest_port));
    assert!(connection.may_send());

    let mut connection = Connection::asking(3, KEY, 0, WINDOW);
    assert_eq!(connection.take_control().unwrap().op, op::REQUEST);
    assert!(connection.is_asking() && !connection.wants_data());
    assert_eq!(connection.packet(&from_guest(op::RESPONSE), 0), Verdict::Accepted);
    assert!(connection.may_send());
    assert_eq!(connection.packet(&from_guest(op::RESPONSE), 0), Verdict::Violation, "only once");
}

#[test]
fn nothing_but_the_answer_or_a_reset_precedes_a_connection() {
    for op in [op::REQUEST, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 0, 9] {
        let mut connection = Connection::asking(3, KEY, 0, WINDOW);
        assert_eq!(connection.packet(&from_guest(op), 0), Verdict::Violation, "{op}");
        let mut connection = Connection::dialing(&from_guest(op::REQUEST), 0, WINDOW);
        assert_eq!(connection.packet(&from_guest(op), 0), Verdict::Violation, "{op}");
    }
    assert_eq!(Connection::asking(3, KEY, 0, WINDOW).packet(&from_guest(op::RST), 0), Verdict::Gone);
}

#[test]
fn credit_for_the_guest_is_what_waits_and_the_window() {
    let mut connection = open();
    assert_eq!(connection.packet(&data(WINDOW), 0), Verdict::Data);
    assert_eq!(connection.packet(&data(1), WINDOW as usize), Verdict::Violation);
    assert_eq!(connection.packet(&data(WINDOW), 1), Verdict::Violation);
    assert_eq!(connection.packet(&data(u32::MAX), 2), Verdict::Violation);
    assert_eq!(connection.packet(&data(0), WINDOW as usize), Verdict::Data);
}

#[test]
fn the_guest_hears_of_its_credit_at_half_of_the_window() {
    let mut connection = open();
    connection.passed_on(499);
    assert!(!connection.has_control());
    connection.passed_on(1);
    let update = connection.take_control().unwrap();
    assert_eq!((update.op, update.fwd_cnt), (op::CREDIT_UPDATE, 500));
    // What says it anyway makes the update unnecessary.
    connection.passed_on(500);
    assert!(connection.has_control());
    assert_eq!(connection.send(1).fwd_cnt, 1000);
    assert!(!connection.has_control());
    // And it is said when asked for.
    assert_eq!(connection.packet(&from_guest(op::CREDIT_REQUEST), 0), Verdict::Noted);
    assert_eq!(connection.take_control().unwrap().op, op::CREDIT_UPDATE);
    assert_eq!(connection.take_control(), None);
}

#[test]
fn room_is_counted_around_the_end_of_the_numbers() {
    let mut connection = open();
    let mut sent = 0_u32;
    // Three times around.
    for _ in 0..13 {
        let step = 1 << 30;
        let update = Header { buf_alloc: step, fwd_cnt: sent, ..from_guest(op::CREDIT_UPDATE) };
        assert_eq!(connection.packet(&update, 0), Verdict::Noted);
        assert_eq!(connection.room(), step);
        connection.send(step - 1);
        assert_eq!(connection.room(), 1);
        connection.send(1);
        assert_eq!(connection.room(), 0);
        sent = sent.wrapping_add(step);
    }
}

#[test]
fn no_numbers_of_the_guest_make_room_that_it_did_not_claim() {
    for buf_alloc in [0, 1, 100, u32::MAX] {
        for fwd_cnt in [0, 1, 50, 51, 1 << 31, u32::MAX] {
            let mut connection = open();
            connection.send(50);
            let update = Header { buf_alloc, fwd_cnt, ..from_guest(op::CREDIT_UPDATE) };
            connection.packet(&update, 0);
            assert!(connection.room() <= buf_alloc);
            if fwd_cnt > 50 {
                // It claims to have read what it was not sent: that is no credit to speak of.
                assert!(u64::from(connection.room()) <= u64::from(buf_alloc).saturating_sub(1));
            }
        }
    }
}

#[test]
fn a_guest_without_room_is_asked_once() {
    let mut connection = open();
    connection.ask_for_room();
    assert!(!connection.has_control(), "there is room");
    connection.send(100);
    connection.ask_for_room();
    assert_eq!(connection.take_control().unwrap().op, op::CREDIT_REQUEST);
    connection.ask_for_room();
    assert!(!connection.has_control());
    connection.packet(&Header { fwd_cnt: 1, ..from_guest(op::CREDIT_UPDATE) }, 0);
    connection.send(1);
    connection.ask_for_room();
    assert!(connection.has_control(), "it had room meanwhile");
}

#[test]
fn a_guest_that_closes_all_is_reset_once_all_is_passed_on() {
    let mut connection = open();
    assert_eq!(connection.packet(&shutdown(shut::BOTH), 10), Verdict::Shut);
    assert_eq!(connection.end(10), End::Closing);
    assert_eq!(connection.end(0), End::Reset);
    // It waited long enough: what it sent is passed on all the same.
    assert_eq!(connection.packet(&from_guest(op::RST), 10), Verdict::Noted);
    assert_eq!(connection.end(10), End::Closing);
    assert_eq!(connection.end(0), End::Over);
    assert_eq!(connection.packet(&from_guest(op::REQUEST), 10), Verdict::Stray);
    assert_eq!(connection.packet(&from_guest(op::RST), 10), Verdict::Noted);
    connection.passed_on(900);
    assert!(!connection.has_control(), "the guest does not know it any more");
}

#[test]
fn a_reset_without_a_close_is_the_end_at_once() {
    assert_eq!(open().packet(&from_guest(op::RST), 10), Verdict::Gone);
    let mut connection = open();
    connection.packet(&shutdown(shut::SEND), 10);
    assert_eq!(connection.packet(&from_guest(op::RST), 10), Verdict::Gone);
}

#[test]
fn halves_close_one_by_one() {
    let mut connection = open();
    connection.packet(&shutdown(shut::SEND), 0);
    assert_eq!(connection.end(0), End::Open);
    assert_eq!(connection.packet(&data(1), 0), Verdict::Violation);
    assert!(connection.may_send());
    connection.host_shuts(shut::SEND);
    assert_eq!(connection.end(0), End::Closing, "the guest has to hear that there is no more");
    assert_eq!(connection.take_control().unwrap().flags, shut::SEND);
    assert_eq!(connection.end(1), End::Open);
    assert_eq!(connection.end(0), End::Reset);

    let mut connection = open();
    connection.host_shuts(shut::SEND);
    assert!(!connection.wants_data());
    assert_eq!(connection.take_control().unwrap().flags, shut::SEND);
    connection.host_shuts(shut::SEND);
    assert!(!connection.has_control(), "said once");
    assert_eq!(connection.end(0), End::Open);
    assert_eq!(connection.packet(&data(1), 0), Verdict::Data);
    connection.packet(&shutdown(shut::RECEIVE), 0);
    assert_eq!(connection.end(0), End::Open);
    connection.packet(&shutdown(shut::SEND), 0);
    assert_eq!(connection.end(0), End::Reset, "the flags of several add up");
}

#[test]
fn a_host_that_is_gone_waits_for_the_guest() {
    let mut connection = open();
    connection.host_shuts(shut::RECEIVE);
    assert_eq!(connection.end(0), End::Open);
    assert!(connection.may_send(), "what it wrote before is still read");
    connection.host_shuts(shut::BOTH);
    assert_eq!(connection.end(0), End::Closing);
    assert_eq!(connection.take_control().unwrap().flags, shut::BOTH);
    assert_eq!(connection.end(0), End::Closing);
    assert_eq!(connection.packet(&from_guest(op::RST), 0), Verdict::Gone);
}
