#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quintet::conference::fuzz::hub_words(data));
