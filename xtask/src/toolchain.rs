//! The toolchain that compiles for the BPF target: which ways there are, and which one this machine has.
//!
//! Two ways, tried in this order:
//!
//! 1. a rustup nightly with `rust-src`: `core` is built from its source (`-Z build-std=core`);
//! 2. Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, which brings a ready-made `core` for BPF.
//!
//! Both link with `bpf-linker`, which must be built on an LLVM not older than the compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo_home, output, which};
use crate::error::{Error, Result};

/// The target of the eBPF programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Where Debian's `libstd-rust-web-dev-bpf` puts `core`.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// A way to compile for the BPF target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A rustup nightly with `rust-src`.
    Nightly { cargo: PathBuf, rustc: PathBuf },
    /// Debian's packages.
    Debian,
}

impl Toolchain {
    /// The first way that this machine has, if it has one.
    pub(crate) fn find() -> Option<Self> {
        Self::nightly().or_else(Self::debian)
    }

    fn nightly() -> Option<Self> {
        let rustup = which("rustup")?;
        let ask = |program: &str| {
            let mut command = Command::new(&rustup);
            command.args(["which", "--toolchain", "nightly", program]).env_remove("RUSTUP_TOOLCHAIN");
            // No nightly is an ordinary answer here, not an error to show.
            let output = command.output().ok().filter(|output| output.status.success())?;
            let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
            path.is_file().then_some(path)
        };
        let (cargo, rustc) = (ask("cargo")?, ask("rustc")?);
        let sysroot = rustc.parent()?.parent()?;
        let source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        source.is_file().then_some(Self::Nightly { cargo, rustc })
    }

    /// Debian's way, if its three packages are there.
    pub(crate) fn debian() -> Option<Self> {
        let present =
            ["/usr/bin/cargo", "/usr/bin/rustc", DEBIAN_CORE].iter().all(|path| Path::new(path).exists());
        present.then_some(Self::Debian)
    }

    /// What a person calls it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nightly { rustc, .. } => format!("rustup nightly with rust-src ({})", rustc.display()),
            Self::Debian => "Debian's rustc-web with its core for BPF (/usr/bin/rustc)".to_owned(),
        }
    }

    /// The major version of the LLVM in the compiler, which the linker must match.
    pub(crate) fn llvm(&self) -> Result<u32> {
        let rustc = match self {
            Self::Nightly { rustc, .. } => rustc.as_path(),
            Self::Debian => Path::new("/usr/bin/rustc"),
        };
        let mut command = Command::new(rustc);
        forget_rustup(&mut command);
        let text = output(command.arg("-vV"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let major =
            version.and_then(|version| version.split('.').next()).and_then(|major| major.parse().ok());
        major.ok_or_else(|| Error::Output {
            command: format!("{} -vV", rustc.display()),
            reason: "it names no LLVM version".to_owned(),
        })
    }

    /// A `cargo build` for the BPF target, ready for more arguments.
    pub(crate) fn cargo_build(&self, linker: &Path) -> Command {
        let (mut command, rustc) = match self {
            Self::Nightly { cargo, rustc } => (Command::new(cargo), rustc.as_path()),
            Self::Debian => (Command::new("/usr/bin/cargo"), Path::new("/usr/bin/rustc")),
        };
        forget_rustup(&mut command);
        command.env("RUSTC", rustc).args(["build", "--target", TARGET]);
        match self {
            Self::Nightly { .. } => command.args(["-Z", "build-std=core"]),
            // The features that `core` for BPF needs are unstable; this compiler is a stable one.
            Self::Debian => command.env("RUSTC_BOOTSTRAP", "1"),
        };
        // `--btf` keeps the type information that the kernel and aya read maps and programs by.
        let flags =
            ["-Cdebuginfo=2", "-Clink-arg=--btf", &format!("-Clinker={}", linker.display())].join("\x1f");
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        command
    }
}

/// `bpf-linker`, where it is installed.
pub(crate) fn linker() -> Option<PathBuf> {
    which("bpf-linker")
}

/// Takes away what rustup's proxies and the running cargo put into the environment: it would lead another
/// toolchain's programs to the wrong compiler, libraries and flags. What concerns the network and cargo's home stays.
fn forget_rustup(command: &mut Command) {
    const KEEP: [&str; 5] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo = text == "CARGO" || text.starts_with("CARGO_");
        let of_rustc = text.starts_with("RUSTC") || text == "RUSTFLAGS" || text == "RUSTUP_TOOLCHAIN";
        let kept = KEEP.iter().any(|prefix| text.starts_with(prefix));
        if (of_cargo && !kept) || of_rustc || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    // Only system programs and what `cargo install` made; rustup's proxies come after the system's `rustc`.
    let mut path = std::ffi::OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(home) = cargo_home() {
        path.push(":");
        path.push(home.join("bin"));
    }
    command.env("PATH", path);
}
