#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet::capture::fuzz::y4m(data));
