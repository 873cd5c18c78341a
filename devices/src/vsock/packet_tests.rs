//! The bytes of a header.

use proptest::prelude::*;

use super::*;

#[test]
fn fields_are_where_the_standard_has_them() {
    let header = Header {
        src_cid: 0x0807_0605_0403_0201,
        dst_cid: 0x100f_0e0d_0c0b_0a09,
        src_port: 0x1413_1211,
        dst_port: 0x1817_1615,
        len: 0x1c1b_1a19,
        kind: 0x1e1d,
        op: 0x201f,
        flags: 0x2423_2221,
        buf_alloc: 0x2827_2625,
        fwd_cnt: 0x2c2b_2a29,
    };
    let bytes: Vec<u8> = (1..=44).collect();
    assert_eq!(header.bytes().as_slice(), bytes);
    assert_eq!(Header::parse(&header.bytes()), header);
}

#[test]
fn a_reset_goes_back() {
    let header = Header {
        src_cid: 1,
        dst_cid: 2,
        src_port: 3,
        dst_port: 4,
        len: 5,
        kind: 6,
        op: 7,
        flags: 8,
        buf_alloc: 9,
        fwd_cnt: 10,
    };
    let reset = Header {
        src_cid: 2,
        dst_cid: 1,
        src_port: 4,
        dst_port: 3,
        kind: 6,
        op: op::RST,
        ..Header::default()
    };
    assert_eq!(header.reset(), reset);
}

proptest! {
    #[test]
    fn any_bytes_are_a_header(bytes in any::<[u8; 32]>(), rest in any::<[u8; 12]>()) {
        let bytes: [u8; HEADER_LEN] = [bytes.as_slice(), &rest].concat().try_into().unwrap();
        prop_assert_eq!(Header::parse(&bytes).bytes(), bytes);
    }
}
