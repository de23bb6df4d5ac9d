//! Running programs: a command's output as text, a running program as a guard, and waiting without sleeping
//! blindly.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

/// What a program wrote, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command to its end, whatever that is.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { command: line(command), source })?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    if output.code == Some(0) { Ok(output.stdout) } else { Err(failed(command, &output)) }
}

/// Runs a command that must succeed, feeding it `input`.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|source| Error::Start { command: line(command), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails early closes its input; its exit status then says more than this error.
        let _early = stdin.write_all(input.as_bytes());
    }
    let output =
        child.wait_with_output().map_err(|source| Error::Start { command: line(command), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(failed(command, &Output { code: output.status.code(), stdout, stderr }))
}

fn failed(command: &Command, output: &Output) -> Error {
    let status = output.code.map_or("killed".to_owned(), |code| format!("exit code {code}"));
    let output = format!("{}{}", output.stdout.trim_end(), output.stderr.trim_end());
    Error::Failed { command: line(command), status, output }
}

/// The command as a person would type it, without the way into its namespace.
pub(crate) fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let start = words.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    words[start..].join(" ")
}

/// A program at work; killed when dropped. What it writes goes to a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
    what: String,
}

impl Running {
    /// Starts a command, its output appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).map_err(Error::file("open", log))?;
        let copy = file.try_clone().map_err(Error::file("open", log))?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child = command.spawn().map_err(|source| Error::Start { command: line(command), source })?;
        Ok(Self { child, log: log.to_owned(), what: line(command) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).map_err(|errno| Error::answer(format!("kill -{signal} {}", self.what), errno))
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait().map(|_| ()))
            .map_err(Error::file("kill", &self.what))
    }

    /// Waits for its own end.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let mut code = None;
        wait_for(&format!("the end of `{}`", self.what), limit, || {
            let status = self.child.try_wait().map_err(Error::file("wait for", &self.what))?;
            code = status.and_then(|status| status.code());
            Ok(status.map(|_| ()))
        })?;
        Ok(code)
    }

    /// Leaves it running when this guard goes; the bed's removal ends it.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// By how much limits are longer: `SLUICE_TEST_PATIENCE`, which is set where a machine is made in software.
fn patience() -> u32 {
    let set = std::env::var("SLUICE_TEST_PATIENCE").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Tries until `attempt` gives a value, at most for `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    let limit = limit * patience();
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match attempt() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        if started.elapsed() >= limit {
            return Err(Error::TimedOut { what: what.to_owned(), waited: limit, last });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
