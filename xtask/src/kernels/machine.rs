//! A virtual machine: a kernel of its own over this machine's files, without a network, that runs one command.
//!
//! The files come by virtio-fs and are mounted read-only; what is written goes to the memory of the virtual machine, and
//! with it. Two programs make it up, `virtiofsd` and `qemu`; both die with this one, however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::command::{output, which};
use crate::error::{Error, Result};
use crate::kernels::cpio::Archive;
use crate::kernels::package::Kernel;

/// What the first file system must load before it sees the machine's files.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];
/// The memory of the virtual machine, for all that runs in it and all that it writes.
const MEMORY: &str = "4G";
/// How long a kernel may take before it says the first word. By software, a few seconds are usual.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How the processor of the virtual machine is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// By software: some ten times slower, and always there.
    Software,
}

impl Accelerator {
    /// The best that this machine has. `/dev/kvm` alone says little: there are machines whose KVM runs only kernels
    /// that were made for it.
    pub(super) fn find() -> Self {
        let hardware = ["kvm_intel", "kvm_amd"].map(|module| Path::new("/sys/module").join(module).exists());
        let opens = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if opens && hardware.contains(&true) { Self::Kvm } else { Self::Software }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Software => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// By how much the tests' limits of time are longer.
    fn patience(self) -> &'static str {
        match self {
            Self::Kvm => "1",
            Self::Software => "6",
        }
    }

    /// For a message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Software => "no usable KVM here: in software",
        }
    }
}

/// What to run, and where.
pub(super) struct Job<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) busybox: &'a Path,
    pub(super) accelerator: Accelerator,
    /// The folder in which the command runs.
    pub(super) root: &'a Path,
    /// A line for a shell.
    pub(super) command: &'a str,
    /// A folder for the kernel's log and what else tells of the run.
    pub(super) folder: &'a Path,
    pub(super) limit: Duration,
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the command; `Ok` is its exit code. What it writes is passed on line by line.
pub(super) fn run(job: &Job<'_>) -> Result<i32> {
    let archive = job.folder.join("initramfs");
    fs::write(&archive, first_files(job)?).map_err(Error::file("write", &archive))?;
    let status = job.folder.join("status");
    let _ = fs::remove_file(&status);

    let socket = format!("sluice-xtask-{}", std::process::id());
    let _files = serve_files(&socket)?;
    let mut machine = Running(spawn(qemu(job, &socket).stdin(Stdio::null()).stdout(Stdio::piped()))?);
    let stdout = machine.0.stdout.take();
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        for line in stdout
            .into_iter()
            .flat_map(|pipe| BufReader::new(pipe).split(b'\n'))
            .map_while(std::result::Result::ok)
        {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let begun = Instant::now();
    let mut spoken = false;
    loop {
        let limit = if spoken { job.limit } else { BOOT_LIMIT.min(job.limit) };
        match lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                spoken = true;
                println!("{}", String::from_utf8_lossy(&line).trim_end());
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                drop(machine);
                let what = if spoken { "the tests went on" } else { "no word came from the kernel" };
                return Err(failed(job, format!("{what} for {} s", begun.elapsed().as_secs())));
            }
        }
    }
    let _ = machine.0.wait();
    let _ = reader.join();
    let said = fs::read_to_string(&status).unwrap_or_default();
    let said = said.trim();
    match said.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None if said.is_empty() => Err(failed(job, "it ended without a word".to_owned())),
        None => Err(failed(job, said.to_owned())),
    }
}

fn failed(job: &Job<'_>, reason: String) -> Error {
    let log = job.folder.join("console.log");
    Error::Machine { kernel: job.kernel.release.clone(), reason, log }
}

/// The first file system: a shell, the modules that lead to the machine's files, and what to do there.
fn first_files(job: &Job<'_>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "modules", "below", "above", "root"] {
        archive.folder(folder);
    }
    let busybox = fs::read(job.busybox).map_err(Error::file("read", job.busybox))?;
    archive.program("busybox", &busybox);
    archive.program("init", include_bytes!("init.sh"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    let modules = job.kernel.root.join("lib/modules");
    let variables = [
        ("PATH", path.as_os_str()),
        ("HOME", home.as_os_str()),
        ("SLUICE_MODULES", modules.as_os_str()),
        ("SLUICE_ROOT", job.root.as_os_str()),
        ("SLUICE_COMMAND", job.command.as_ref()),
        ("SLUICE_TEST_PATIENCE", job.accelerator.patience().as_ref()),
    ];
    let lines =
        variables.map(|(name, value)| format!("export {name}={}\n", quoted(&value.to_string_lossy())));
    archive.program("environment", lines.concat().as_bytes());
    for (index, file) in modules_of(job.kernel)?.iter().enumerate() {
        let content = match file.extension() {
            Some(extension) if extension == "xz" => unpacked(file)?,
            _ => fs::read(file).map_err(Error::file("read", file))?,
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        archive.program(&format!("modules/{index:02}-{}", name.trim_end_matches(".xz")), &content);
    }
    Ok(archive.finish())
}

/// A word for a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The files of [`MODULES`] and of what they need, in the order in which they are loaded. What a kernel has built in has
/// no file.
fn modules_of(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut command = Command::new(which("modprobe").unwrap_or_else(|| "modprobe".into()));
        command.arg("--dirname").arg(&kernel.root).args([
            "--set-version",
            &kernel.release,
            "--show-depends",
            module,
        ]);
        for line in output(&mut command)?.lines() {
            let file = line.strip_prefix("insmod ").map(|rest| PathBuf::from(rest.trim()));
            files.extend(file.filter(|file| !files.contains(file)));
        }
    }
    Ok(files)
}

fn unpacked(file: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("xz");
    let output = command.args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.map_err(|source| Error::Start { program: "xz".to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Output { command: format!("xz --decompress {}", file.display()), reason })
}

/// Starts the server of this machine's files. Its socket is none of the file system's: nothing is left of it.
fn serve_files(name: &str) -> Result<Running> {
    let address = SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
    let listener = address.map_err(Error::file("listen at the abstract socket", name))?;
    let mut command = until_we_end(&file_server()?);
    command.args(["--fd=0", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    spawn(command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null())).map(Running)
}

/// `virtiofsd`, which is no program for a person and in no `PATH`.
pub(super) fn file_server() -> Result<PathBuf> {
    let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists()).ok_or_else(|| Error::Missing {
        what: "the program `virtiofsd`".to_owned(),
        way: "it is in Debian's package virtiofsd, or, in Debian 12, qemu-system-common".to_owned(),
    })
}

fn qemu(job: &Job<'_>, socket: &str) -> Command {
    let log = job.folder.join("console.log");
    let status = job.folder.join("status");
    let file = |path: &Path| format!("file:{}", path.display());
    let processors = std::thread::available_parallelism().map_or(1, usize::from).min(8).to_string();
    let memory = format!("memory-backend-memfd,id=memory,size={MEMORY},share=on");
    let files = format!("socket,id=files,path={socket},abstract=on");
    let mut command = until_we_end(Path::new("qemu-system-x86_64"));
    command.args(["-M", "q35"]).args(job.accelerator.arguments());
    command.args(["-smp", &processors, "-m", MEMORY, "-object", &memory, "-numa", "node,memdev=memory"]);
    command.args(["-chardev", &files, "-device", "vhost-user-fs-pci,chardev=files,tag=machine"]);
    // No network device, no screen, no disk. The serial lines: the kernel's words, the command's, its outcome.
    command.args(["-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"]);
    command.args(["-serial", &file(&log), "-serial", "stdio", "-serial", &file(&status)]);
    command.arg("-kernel").arg(&job.kernel.image).arg("-initrd").arg(job.folder.join("initramfs"));
    command.args(["-append", "console=ttyS0 panic=-1 oops=panic"]);
    command
}

/// A program that is killed when this one has ended, in whatever way.
fn until_we_end(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_args().nth(2).unwrap_or_default().to_string_lossy().into_owned();
    command.spawn().map_err(|source| Error::Start { program, source })
}
