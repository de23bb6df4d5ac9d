//! `cargo xtask kernels`: tests on other kernels than this machine's, each in a virtual machine that sees this machine's
//! files, and in it the test programs that were built here.

mod cpio;
mod machine;
mod package;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::{cargo, output, which};
use crate::debian::is_root;
use crate::error::{Error, Result};
use crate::kernels::machine::{Accelerator, Job, quoted};
use crate::workspace::{MachineLock, Workspace};
use crate::{setup, test};

/// The kernels without `--kernel`.
const VERSIONS: [&str; 1] = ["6.12"];
/// The tests without a filter: those of what a kernel may lack.
pub(crate) const NEEDY: &str = "binary_id(sluice-cni::vlan) | (binary_id(sluice-netlink) & test(/^vlan::/)) | \
                                (binary_id(sluice-tests::system) & test(/^(vlan|sctp)::/))";
/// What makes and runs virtual machines, and the packages that have it.
const PROGRAMS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("modprobe", "kmod"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];

/// Run tests on other kernels, in virtual machines (needs root).
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A version of Debian's kernels, such as 6.12 or 6.1; may be given several times.
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Minutes that the tests may take on one kernel.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Arguments for `cargo nextest run`, such as a filter; without, the tests of VLANs and of SCTP.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    if !is_root() {
        return Err(Error::NotRoot { verb: "kernels", reason: "it serves all of this machine's files" });
    }
    test::build(workspace)?;
    let usual = VERSIONS.map(str::to_owned);
    let kernels = if args.kernels.is_empty() { &usual[..] } else { &args.kernels };
    let limit = Duration::from_secs(args.minutes.saturating_mul(60));
    let mut failed = 0;
    for version in kernels {
        failed += usize::from(!on(workspace, version, &args.nextest, limit)?);
    }
    match failed {
        0 => Ok(()),
        count => Err(Error::Findings { count, what: "kernels with failed tests" }),
    }
}

/// Runs built tests on a kernel; whether all of them passed.
pub(crate) fn on(workspace: &Workspace, version: &str, nextest: &[String], limit: Duration) -> Result<bool> {
    let packages = workspace.target().join("kernels");
    let folder = packages.join(format!("run-{version}"));
    fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
    let (kernel, busybox) = prepare(&packages, version)?;
    let command = command(workspace, &folder, nextest)?;
    let accelerator = Accelerator::find();
    eprintln!("==> tests on Linux {} ({})", kernel.release, accelerator.describe());
    let job = Job {
        kernel: &kernel,
        busybox: &busybox,
        accelerator,
        root: workspace.root(),
        command: &command,
        folder: &folder,
        limit,
    };
    let begun = Instant::now();
    let code = machine::run(&job)?;
    eprintln!("    Linux {}: done in {:.1} s", kernel.release, begun.elapsed().as_secs_f32());
    Ok(code == 0)
}

/// Installs what is missing, and fetches the kernel.
fn prepare(packages: &Path, version: &str) -> Result<(package::Kernel, std::path::PathBuf)> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Missing {
            what: "virtual machines for another processor than x86-64".to_owned(),
            way: "nobody has needed them yet: xtask/src/kernels/machine.rs".to_owned(),
        });
    }
    let _lock = MachineLock::take()?;
    setup::programs(&PROGRAMS, "virtual machines")?;
    machine::file_server()?;
    Ok((package::kernel(packages, version)?, package::busybox(packages)?))
}

/// What runs the tests there: the test runner alone, told what cargo would have told it.
fn command(workspace: &Workspace, folder: &Path, nextest: &[String]) -> Result<String> {
    let runner = which("cargo-nextest").unwrap_or_else(|| "cargo-nextest".into());
    let (cargo_metadata, binaries) = (folder.join("cargo.json"), folder.join("binaries.json"));
    let metadata = output(&mut cargo(workspace.root(), ["metadata", "--format-version=1", "--locked"]))?;
    fs::write(&cargo_metadata, metadata).map_err(Error::file("write", &cargo_metadata))?;
    let mut list = test::nextest(workspace, "list");
    let list = output(list.args(["--list-type", "binaries-only", "--message-format", "json"]))?;
    fs::write(&binaries, list).map_err(Error::file("write", &binaries))?;

    let mut words = vec![runner.to_string_lossy().into_owned()];
    words.extend(["nextest", "run", "--profile", "kernels", "--no-fail-fast"].map(str::to_owned));
    words.extend(["--color", "never", "--hide-progress-bar", "--cargo-metadata"].map(str::to_owned));
    words.push(cargo_metadata.to_string_lossy().into_owned());
    words.push("--binaries-metadata".to_owned());
    words.push(binaries.to_string_lossy().into_owned());
    match nextest {
        [] => words.extend(["-E".to_owned(), NEEDY.to_owned()]),
        given => words.extend_from_slice(given),
    }
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}
