//! The target `cni_pool` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_libfuzzer::run("cni_pool", data));
