//! A bzImage in all but its marks, which are put in place so that no effort is spent on finding them.

#![no_main]

use firecrest_fuzz::kernels::setup;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let mut file = file.to_vec();
    for (offset, mark) in [(setup::BOOT_FLAG, &b"\x55\xaa"[..]), (setup::MAGIC, b"HdrS")] {
        file.iter_mut().skip(offset).zip(mark).for_each(|(to, from)| *to = *from);
    }
    firecrest_fuzz::invariants::exercise(&file);
});
