//! `cargo xtask setup`: finds or installs what the other verbs need. Says what it is about to install; does
//! nothing the second time; what it cannot install it names, with the way to get it.

use std::process::Command;

use crate::command::{cargo, output, run as run_command, step, which};
use crate::debian;
use crate::error::{Error, Result};
use crate::toolchain::{Toolchain, linker};
use crate::workspace::{MachineLock, Workspace};

/// The version of bpf-linker that is installed where there is none.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that this bpf-linker can be built on.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// A compiler for BPF, from Debian.
const TOOLCHAIN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// The programs that the tests and the demo run, and the packages that have them.
const PROGRAMS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("nslookup", "bind9-dnsutils"),
    ("busybox", "busybox"),
    ("socat", "socat"),
    ("iperf3", "iperf3"),
    ("ps", "procps"),
];

/// What `bench dns` asks with, and the servers that it compares.
const NAME_SERVERS: [(&str, &str); 4] =
    [("dnsperf", "dnsperf"), ("knotd", "knot"), ("nsd", "nsd"), ("unbound", "unbound")];

/// Find or install what the other verbs need.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the toolchain for the eBPF programs.
    #[arg(long)]
    toolchain_only: bool,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.toolchain_only { toolchain() } else { everything(workspace) }
}

/// Everything.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    let _lock = MachineLock::take()?;
    toolchain_locked()?;
    test_programs()?;
    test_runner(workspace)
}

/// Only what compiles the eBPF programs.
pub(crate) fn toolchain() -> Result<()> {
    if Toolchain::find().is_some() && linker().is_some() {
        return Ok(()); // the common case, without waiting for anyone
    }
    let _lock = MachineLock::take()?;
    toolchain_locked()
}

/// What to say when no compiler for BPF is there and none could be installed.
pub(crate) fn no_toolchain() -> Error {
    Error::Missing {
        what: "a Rust compiler for the BPF target".to_owned(),
        way: "rustup toolchain install nightly --component rust-src (or, on Debian, `cargo xtask setup` as root)"
            .to_owned(),
    }
}

/// What to say when the linker is not there and could not be installed.
pub(crate) fn no_linker() -> Error {
    Error::Missing {
        what: "bpf-linker".to_owned(),
        way: "cargo xtask setup, or a release from https://github.com/aya-rs/bpf-linker built on an LLVM not older \
              than the compiler's"
            .to_owned(),
    }
}

/// The programs of `bench dns`, which nothing else needs.
pub(crate) fn name_servers() -> Result<()> {
    let _lock = MachineLock::take()?;
    programs(&NAME_SERVERS, "the DNS benchmark")
}

fn toolchain_locked() -> Result<()> {
    let toolchain = match Toolchain::find() {
        Some(found) => found,
        None => {
            if which("apt-get").is_none() {
                return Err(no_toolchain());
            }
            let missing = debian::missing(&TOOLCHAIN_PACKAGES);
            if missing.is_empty() {
                return Err(no_toolchain()); // installed, and yet incomplete
            }
            step("compiler for BPF", "up to a minute", || debian::install(&missing, "a compiler for BPF"))?;
            Toolchain::debian().ok_or_else(no_toolchain)?
        }
    };
    eprintln!("    compiler for BPF: {}", toolchain.describe());
    if linker().is_none() {
        step("bpf-linker", "two or three minutes", || install_linker(toolchain.llvm()?))?;
    }
    let linker = linker().ok_or_else(no_linker)?;
    eprintln!("    linker for BPF: {}", linker.display());
    Ok(())
}

/// Builds bpf-linker on the compiler's own version of LLVM, from Debian's packages.
fn install_linker(llvm: u32) -> Result<()> {
    if !LINKER_LLVM.contains(&llvm) {
        return Err(Error::Missing {
            what: format!("a bpf-linker for LLVM {llvm}: version {LINKER_VERSION} knows {LINKER_LLVM:?}"),
            way:
                "install a bpf-linker that does, or an older nightly (rustup toolchain install nightly-DATE)"
                    .to_owned(),
        });
    }
    let packages = [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".into(),
        "zlib1g-dev".into(),
    ];
    let missing = debian::missing(&packages.each_ref().map(String::as_str));
    if !missing.is_empty() {
        debian::install(&missing, &format!("bpf-linker (LLVM {llvm})"))?;
    }
    eprintln!("    about to install bpf-linker {LINKER_VERSION} from crates.io");
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let mut command = Command::new("cargo");
    command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"]);
    command.args(["--features", &format!("llvm-{llvm}")]);
    command.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
    run_command(command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTFLAGS"))
}

fn test_programs() -> Result<()> {
    programs(&PROGRAMS, "tests and demo")?;
    eprintln!("    test programs: all there");
    Ok(())
}

/// Installs the packages of programs that are not there.
pub(crate) fn programs(wanted: &[(&str, &str)], purpose: &str) -> Result<()> {
    let mut packages: Vec<String> = Vec::new();
    for (program, package) in wanted {
        if which(program).is_none() && !packages.iter().any(|known| known == package) {
            packages.push((*package).to_owned());
        }
    }
    if !packages.is_empty() {
        step(purpose, "up to a minute", || debian::install(&packages, purpose))?;
    }
    for (program, package) in wanted {
        if which(program).is_none() {
            return Err(Error::Missing {
                what: format!("the program `{program}`"),
                way: format!("it is in Debian's package {package}"),
            });
        }
    }
    Ok(())
}

fn test_runner(workspace: &Workspace) -> Result<()> {
    if which("cargo-nextest").is_none() {
        eprintln!("    about to install cargo-nextest from crates.io");
        step("test runner", "some minutes: it is built from source", || {
            run_command(&mut cargo(workspace.root(), ["install", "--locked", "cargo-nextest"]))
        })?;
    }
    let version = output(&mut cargo(workspace.root(), ["nextest", "--version"]))?;
    eprintln!("    test runner: {}", version.lines().next().unwrap_or_default());
    Ok(())
}
