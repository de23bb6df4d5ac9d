//! The target `cni_ipam_result` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_libfuzzer::run("cni_ipam_result", data));
