//! The target `cni_args` for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_libfuzzer::run("cni_args", data));
