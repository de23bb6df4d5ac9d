//! Addresses from another plugin (`ipam.type`), which is run as the specification says: with our environment, and
//! with the configuration as we got it.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::{Config, Dns, RouteConfig},
    environment::Lookup,
    error::{Code, Error, Result},
    result::Address,
    version::Version,
};

/// How long another plugin may take. That for DHCP asks a server several times, for ten seconds in all unless it is told
/// otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// Another plugin that gives out addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delegate {
    kind: String,
    program: PathBuf,
}

/// What it gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
}

impl Delegate {
    /// The plugin that the configuration names; `None` if we give out the addresses ourselves.
    pub(crate) fn find(config: &Config, lookup: Lookup<'_>) -> Result<Option<Self>> {
        let Some(kind) = config.delegated_ipam() else { return Ok(None) };
        if kind.contains('/') || kind.starts_with('.') {
            return Err(Error::config(format!("ipam.type {kind:?} is not the name of a plugin")));
        }
        let path = lookup("CNI_PATH").unwrap_or_default();
        let program =
            path.split(':').filter(|part| !part.is_empty()).map(|part| PathBuf::from(part).join(kind));
        match program.into_iter().find(|program| program.is_file()) {
            Some(program) => Ok(Some(Self { kind: kind.to_owned(), program })),
            None => Err(Error::config(format!("ipam.type {kind:?}: no such plugin in CNI_PATH={path:?}"))),
        }
    }

    /// Asks for addresses.
    pub(crate) fn add(&self, config: &Config) -> Result<Given> {
        let answer = self.run("ADD", config)?;
        let given = parse(&answer, config.version()?).map_err(|error| {
            Error::new(
                Code::Delegate,
                format!("ipam plugin {}: its result is not understood: {error}", self.kind),
            )
        })?;
        if given.addresses.is_empty() {
            return Err(Error::new(Code::Delegate, format!("ipam plugin {} gave no address", self.kind)));
        }
        Ok(given)
    }

    /// Runs another command, whose answer says nothing.
    pub(crate) fn forward(&self, command: &str, config: &Config) -> Result<()> {
        self.run(command, config).map(drop)
    }

    fn run(&self, command: &str, config: &Config) -> Result<Vec<u8>> {
        self.run_within(LIMIT, command, &config.raw)
    }

    fn run_within(&self, limit: Duration, command: &str, config: &[u8]) -> Result<Vec<u8>> {
        let failed = |what: String| Error::new(Code::Delegate, format!("ipam plugin {}: {what}", self.kind));
        let mut child = Command::new(&self.program)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot run {}: {error}", self.program.display())))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails before it reads closes the pipe; its exit says why.
            let _ = stdin.write_all(config);
        }
        let answer = read_within(limit, child.stdout.take()).map_err(|error| failed(error.to_string()));
        if answer.is_err() {
            // It may be over already.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        let stdout = answer?;
        if status.success() {
            return Ok(stdout);
        }
        #[derive(Deserialize)]
        struct Failure {
            code: u32,
            msg: String,
            #[serde(default)]
            details: String,
        }
        Err(match serde_json::from_slice::<Failure>(&stdout) {
            Ok(failure) => {
                let error = failed(format!("{} (code {})", failure.msg, failure.code));
                // The number that a runtime acts on.
                let code = if failure.code == Code::TryLater as u32 { Code::TryLater } else { error.code };
                let error = Error { code, ..error };
                if failure.details.is_empty() { error } else { error.detail(failure.details) }
            }
            Err(_) => failed(format!("it ended with {status}")),
        })
    }
}

/// What a program writes until it ends, which it has so long for. A thread waits for it, which ends with this process.
fn read_within(limit: Duration, stdout: Option<ChildStdout>) -> io::Result<Vec<u8>> {
    let Some(mut stdout) = stdout else { return Ok(Vec::new()) };
    let (done, answer) = mpsc::channel();
    thread::Builder::new().name("ipam".to_owned()).spawn(move || {
        let mut text = Vec::new();
        let read = stdout.read_to_end(&mut text).map(|_| text);
        // Nobody listens any more where it took too long.
        let _ = done.send(read);
    })?;
    answer.recv_timeout(limit).unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not answer within {limit:?}")))
    })
}

pub(crate) fn parse(answer: &[u8], version: Version) -> Result<Given, serde_json::Error> {
    #[derive(Deserialize)]
    struct Since03 {
        #[serde(default)]
        ips: Vec<Address>,
        #[serde(default)]
        routes: Option<Vec<RouteConfig>>,
        #[serde(default)]
        dns: Dns,
    }
    #[derive(Deserialize)]
    struct Family {
        #[serde(rename = "ip")]
        address: ipnet::IpNet,
        #[serde(default)]
        gateway: Option<std::net::IpAddr>,
        #[serde(default)]
        routes: Option<Vec<RouteConfig>>,
    }
    #[derive(Deserialize)]
    struct Before03 {
        ip4: Option<Family>,
        ip6: Option<Family>,
        #[serde(default)]
        dns: Dns,
    }
    let value: Value = serde_json::from_slice(answer)?;
    if version >= Version::V0_3_0 {
        let Since03 { ips, routes, dns } = serde_json::from_value(value)?;
        return Ok(Given { addresses: ips, routes: routes.unwrap_or_default(), dns });
    }
    let Before03 { ip4, ip6, dns } = serde_json::from_value(value)?;
    let mut given = Given { dns, ..Given::default() };
    for family in [ip4, ip6].into_iter().flatten() {
        given.addresses.push(Address { address: family.address, gateway: family.gateway });
        given.routes.extend(family.routes.unwrap_or_default());
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hangs");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let delegate = Delegate { kind: "hangs".to_owned(), program };
        let error = delegate.run_within(Duration::from_millis(50), "ADD", b"{}").unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::Delegate, "ipam plugin hangs: it did not answer within 50ms")
        );
    }

    #[test]
    fn results_of_old_and_new_versions_are_read() {
        let new = br#"{"ips":[{"address":"10.1.0.9/24","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#;
        let old =
            br#"{"ip4":{"ip":"10.1.0.9/24","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0"}]},"dns":{}}"#;
        let given = parse(new, Version::V1_0_0).unwrap();
        assert_eq!(given.addresses[0].gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!(given, parse(old, Version(0, 2, 0)).unwrap());
        assert!(parse(b"{", Version::V1_0_0).is_err());
    }
}
