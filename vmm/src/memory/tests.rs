use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn ram_is_split_around_the_gap() {
    let layout = |bytes| Memory::bytes(bytes).layout().unwrap();
    assert_eq!(layout(MIN_BYTES), vec![0..MIN_BYTES; 1]);
    assert_eq!(layout(3 * GIB), vec![0..3 * GIB; 1]);
    assert_eq!(layout(3 * GIB + 4096), [0..3 * GIB, 4 * GIB..4 * GIB + 4096]);
    assert_eq!(layout(64 * GIB), [0..3 * GIB, 4 * GIB..65 * GIB]);
}

#[test]
fn sizes_that_cannot_be_are_named() {
    for (memory, text) in [
        (Memory::bytes(0), "guest memory of 0 bytes is not between 16 MiB and 64 GiB"),
        (Memory::mib(15), "guest memory of 15728640 bytes is not between 16 MiB and 64 GiB"),
        (
            Memory::mib(u64::MAX),
            "guest memory of 18446744073709551615 bytes is not between 16 MiB and 64 GiB",
        ),
        (
            Memory::bytes((64 << 30) + 4096),
            "guest memory of 68719480832 bytes is not between 16 MiB and 64 GiB",
        ),
        (
            Memory::bytes((16 << 20) + 1),
            "guest memory of 16777217 bytes is not a multiple of the 4096-byte page",
        ),
        (
            Memory::bytes((16 << 20) + 4096).huge_pages(HugePages::Hugetlb2M),
            "guest memory of 16781312 bytes is not a multiple of the 2097152-byte page",
        ),
    ] {
        assert_eq!(memory.layout().unwrap_err().to_string(), text);
    }
}
