//! Any file at all, begun from small ELF kernels: parse it, plan its boot, hold the plan to its promises.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    firecrest_fuzz::invariants::exercise(file);
});
