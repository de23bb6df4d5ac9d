//! Embeds the datapath's object file.
//!
//! `SLUICE_EBPF_OBJECT` names it (`cargo xtask build` sets it). Without it, the object that the last
//! `cargo xtask build` left in the target directory is taken; where there is none, the crate still builds on a
//! plain stable toolchain, and loading says what is missing.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=SLUICE_EBPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("datapath.o");
    let built = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?)
        .join("../target/ebpf/bpfel-unknown-none/bpf/sluice-ebpf");
    let object = env::var_os("SLUICE_EBPF_OBJECT").map_or(built, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = if object.exists() { fs::read(&object)? } else { Vec::new() };
    fs::write(out, bytes)?;
    Ok(())
}
