//! A namespace with its cgroup: a node, a pod, an outside host, a switch.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Testbed;
use crate::command::{feed, succeed};
use crate::reaper::{NAMESPACE_FILES, NAMESPACES};
use crate::{Error, Output, Result, Running, enter, programs, run};

/// A namespace; removed when dropped.
#[derive(Debug)]
pub struct Host {
    bed: Testbed,
    name: String,
    netns: String,
    cgroup: PathBuf,
}

impl Host {
    pub(super) fn make(bed: &Testbed, name: &str, cgroup: PathBuf) -> Result<Self> {
        let netns = format!("sluice-{}-{name}", bed.name());
        std::fs::create_dir_all(&cgroup).map_err(Error::file("make", &cgroup))?;
        succeed(Command::new("ip").args(["netns", "add", &netns]))?;
        let host = Self { bed: bed.clone(), name: name.to_owned(), netns, cgroup };
        host.ip("link set lo up\n")?;
        Ok(host)
    }

    /// Its name within the bed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bed it lies in.
    pub fn bed(&self) -> &Testbed {
        &self.bed
    }

    /// Its name for `ip netns`.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The path of its network namespace.
    pub fn netns_path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.netns)
    }

    /// The cgroup of its processes.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command inside.
    pub fn command(&self, program: &str) -> Result<Command> {
        enter::command(&self.netns, &self.cgroup, &self.name, program)
    }

    /// Does something inside on a thread of its own; sockets that it makes stay inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter::inside(&self.netns_path(), work)
    }

    /// Runs a program inside to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        run(self.command(program)?.args(arguments))
    }

    /// Runs a program inside, which must succeed; returns what it wrote.
    pub fn succeed(&self, program: &str, arguments: &[&str]) -> Result<String> {
        succeed(self.command(program)?.args(arguments))
    }

    /// Starts a program inside. Its output goes to `<host>-<what>.log` in the bed's folder.
    pub fn start(&self, what: &str, program: &str, arguments: &[&str]) -> Result<Running> {
        Running::start(self.command(program)?.args(arguments), &self.log_path(what))
    }

    pub(crate) fn log_path(&self, what: &str) -> PathBuf {
        self.bed.folder().join(format!("{}-{what}.log", self.name))
    }

    /// Runs lines of `ip` inside, all in one process.
    pub fn ip(&self, lines: &str) -> Result<String> {
        feed(Command::new("ip").args(["-n", &self.netns, "-batch", "-"]), lines)
    }

    /// Runs `ip -json` inside.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text =
            succeed(Command::new("ip").args(["-n", &self.netns, "-json", "-details"]).args(arguments))?;
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text)
            .map_err(|error| Error::answer(format!("ip -json {}", arguments.join(" ")), error))
    }

    /// Sets kernel parameters, given as `net/ipv4/ip_forward=1`, in one process.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        let mut script = String::new();
        for setting in settings {
            let (path, value) = setting.split_once('=').unwrap_or((setting, "1"));
            let _infallible = writeln!(script, "echo {value} > /proc/sys/{path} || exit 1");
        }
        self.succeed("sh", &["-c", &script]).map(|_| ())
    }

    /// What its processes find as `/etc/<file>`.
    pub fn etc(&self, file: &str, contents: &str) -> Result<()> {
        let folder = Path::new(NAMESPACE_FILES).join(&self.netns);
        std::fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
        let path = folder.join(file);
        std::fs::write(&path, contents).map_err(Error::file("write", &path))
    }

    /// Fetches a URL with curl, within five seconds; returns the body.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.succeed("curl", &["-sS", "--noproxy", "*", "--max-time", "5", url])
    }

    /// Sends a datagram to `target` (address and port) from the port `from` (0: any), and returns the answer's text.
    pub fn ask_udp(&self, target: &str, from: u16) -> Result<String> {
        let program = programs::built("sluice-testbed")?;
        let arguments = ["ask", target, "--from", &from.to_string()];
        Ok(self.succeed(&program.to_string_lossy(), &arguments)?.trim().to_owned())
    }

    /// Sends a datagram of so many bytes to an echo; how many came back.
    pub fn echoed(&self, target: &str, size: usize) -> Result<String> {
        let program = programs::built("sluice-testbed")?;
        let arguments = ["ask", target, "--size", &size.to_string()];
        Ok(self.succeed(&program.to_string_lossy(), &arguments)?.trim().to_owned())
    }

    /// The address that a [`super::Servers::who`] behind `target` sees this host come from; `protocol` is `TCP`,
    /// `SCTP` or `UDP`, `target` address and port.
    pub fn seen_as(&self, protocol: &str, target: &str) -> Result<String> {
        let seen = match protocol {
            "UDP" => self.ask_udp(target, 0)?,
            _ => self.succeed(
                "socat",
                &["-T", "3", "-u", &format!("{protocol}:{target},connect-timeout=5"), "-"],
            )?,
        };
        // socat writes IPv6 in brackets and with all its zeros.
        let text = seen.lines().next().unwrap_or_default().trim_matches(['[', ']']);
        let address: IpAddr =
            text.parse().map_err(|error| Error::answer(format!("who at {target}: {seen:?}"), error))?;
        Ok(address.to_canonical().to_string())
    }

    /// The addresses of a device, without link-local ones.
    pub fn addresses(&self, device: &str) -> Result<Vec<IpAddr>> {
        let listed = self.ip_json(&["address", "show", "dev", device, "scope", "global"])?;
        let infos = listed.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array());
        let texts = infos.flatten().filter_map(|info| info["local"].as_str());
        texts
            .map(|text| text.parse().map_err(|error| Error::answer(format!("address {text}"), error)))
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The bed's removal makes up for whatever fails here; servers of this host are guards of their own.
        let _left = std::fs::remove_dir_all(Path::new(NAMESPACE_FILES).join(&self.netns));
        let _left = succeed(Command::new("ip").args(["netns", "delete", &self.netns]));
    }
}
