//! Real servers to talk to: HTTP by busybox, UDP by socat.

use std::time::Duration;

use super::Host;
use crate::{Error, Result, Running, programs, wait_for};

/// Servers on a host that say who they are.
#[derive(Debug)]
pub struct Servers {
    running: Vec<Running>,
}

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(5);

impl Servers {
    /// None yet.
    pub fn new() -> Self {
        Self { running: Vec::new() }
    }

    /// HTTP on a port, both families. `/` answers `answer` and a line feed; `/large` is `LARGE` bytes long.
    pub fn http(&mut self, host: &Host, port: u16, answer: &str) -> Result<()> {
        let folder = host.bed().subfolder(format!("{}-www", host.name()))?;
        let index = folder.join("index.html");
        std::fs::write(&index, format!("{answer}\n")).map_err(Error::file("write", &index))?;
        let large = folder.join("large");
        let file = std::fs::File::create(&large).map_err(Error::file("make", &large))?;
        file.set_len(Self::LARGE).map_err(Error::file("size", &large))?;
        let listen = format!("[::]:{port}");
        let folder = folder.display().to_string();
        let arguments = ["httpd", "-f", "-p", &listen, "-h", &folder];
        self.running.push(host.start("http", "busybox", &arguments)?);
        listening(host, "t", port)
    }

    /// UDP on a port, both families: every datagram is answered with `answer` and a line feed.
    pub fn udp(&mut self, host: &Host, port: u16, answer: &str) -> Result<()> {
        let listen = format!("UDP6-RECVFROM:{port},fork,ipv6only=0");
        let reply = format!("SYSTEM:read line; echo {answer}");
        self.running.push(host.start("udp", "socat", &[&listen, &reply])?);
        listening(host, "u", port)
    }

    /// TCP and UDP on a port, both families: every connection and every datagram is answered with the address it
    /// seems to come from.
    pub fn who(&mut self, host: &Host, port: u16) -> Result<()> {
        let tcp = format!("TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0");
        let udp = format!("UDP6-RECVFROM:{port},fork,ipv6only=0");
        // The datagram is read first: it would have nowhere to go once `echo` has ended.
        let answers = [
            ("who-tcp", tcp, "SYSTEM:echo $SOCAT_PEERADDR"),
            ("who-udp", udp, "SYSTEM:read line; echo $SOCAT_PEERADDR"),
        ];
        for (what, listen, answer) in answers {
            self.running.push(host.start(what, "socat", &[&listen, answer])?);
        }
        listening(host, "t", port)?;
        listening(host, "u", port)
    }

    /// SCTP on a port, both families: every association is answered with the address that it seems to come from and, on
    /// the next port, with [`Self::LONG`] zeroes.
    pub fn sctp(&mut self, host: &Host, port: u16) -> Result<()> {
        let long = format!("SYSTEM:head -c {} /dev/zero", Self::LONG);
        for (port, answer) in [(port, "SYSTEM:echo $SOCAT_PEERADDR"), (port + 1, long.as_str())] {
            let listen = format!("SCTP6-LISTEN:{port},fork,reuseaddr,ipv6only=0");
            self.running.push(host.start("sctp", "socat", &[&listen, answer])?);
            listening(host, "S", port)?;
        }
        Ok(())
    }

    /// Echoes on a port, both families: whatever comes goes back, over TCP and as datagrams of any length.
    pub fn echo(&mut self, host: &Host, port: u16) -> Result<()> {
        let tcp = format!("TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0");
        self.running.push(host.start("echo-tcp", "socat", &[&tcp, "PIPE"])?);
        let program = programs::built("sluice-testbed")?;
        let udp = host.start("echo-udp", &program.to_string_lossy(), &["echo", &port.to_string()])?;
        self.running.push(udp);
        listening(host, "t", port)?;
        listening(host, "u", port)
    }

    /// Leaves them running when this guard goes; the bed's removal ends them.
    pub fn leave(self) {
        self.running.into_iter().for_each(Running::leave);
    }

    /// How much comes over an association: more than fits into one packet.
    pub const LONG: usize = 200_000;

    /// The length of `/large`: long enough to be still under way when a download is looked at.
    pub const LARGE: u64 = 64 << 20;
}

impl Default for Servers {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until a socket is bound to the port: `kind` is `t` for TCP, `u` for UDP, `S` for SCTP.
fn listening(host: &Host, kind: &str, port: u16) -> Result<()> {
    wait_for(&format!("port {port} of {}", host.name()), START, || {
        let filter = format!("sport = :{port}");
        let listed = host.succeed("ss", &["-Hln", &format!("-{kind}"), &filter])?;
        Ok((!listed.trim().is_empty()).then_some(()))
    })
}
