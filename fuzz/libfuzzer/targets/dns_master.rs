//! The target `dns_master` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_libfuzzer::run("dns_master", data));
