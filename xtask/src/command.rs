//! Running other programs: what is run is shown, and a failure names it.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::error::{Error, Result};

/// The command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: line(command), status: status.to_string() })
}

/// Runs a command and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|source| start_error(command, source))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::Failed { command: line(command), status: output.status.to_string() });
    }
    String::from_utf8(output.stdout)
        .map_err(|error| Error::Output { command: line(command), reason: error.to_string() })
}

/// Runs a step of a longer verb: says what starts, how long it may take, and how long it took.
pub(crate) fn step(title: &str, expect: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (bold, plain) = if std::io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    eprintln!("{bold}==> {title}{plain}{}{expect}", if expect.is_empty() { "" } else { " - " });
    let started = Instant::now();
    work()?;
    eprintln!("    {title}: done in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Where `program` is found: in `PATH`, in the system's folders, or among cargo's installed programs.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

/// Cargo's home, where `cargo install` puts programs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// `cargo` as the caller runs it, with the same toolchain as this program was built with.
pub(crate) fn cargo(root: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(arguments);
    // What `cargo run` set for this program is nobody else's business, and would make build scripts that
    // watch these variables run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(&name);
        }
    }
    command
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
