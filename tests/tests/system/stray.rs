//! Segments out of nowhere, and ports that are used again at once (rows 26 and 29 of the behaviour table).

use std::collections::BTreeSet;

use sluice_tests::bed::{Host, Servers};
use sluice_tests::packet::flag;
use sluice_tests::{Error, Result, Running, programs, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, beside_web, bracketed};

on_both_paths!(
    a_stray_segment_leaves_a_connection_alone,
    a_port_that_is_used_again_at_once_gets_an_answer_each_time,
);

/// A service of echoes, its port and node port.
const ECHO: [&str; 2] = ["10.96.0.40", "fd00:96::40"];
const PORT: u16 = 91;
const NODE_PORT: u16 = 30091;

/// A connection that says something every tenth of a second and hears it again.
struct Talk {
    running: Running,
    heard: usize,
}

impl Talk {
    fn start(site: &Site, host: &Host, target: &str, from: u16) -> Result<Self> {
        let log = site.cluster.bed().folder().join(format!("talk-{from}.log"));
        let script = format!("while echo ask; do sleep 0.1; done | socat - TCP:{target},sourceport={from}");
        let mut command = host.command("sh")?;
        Ok(Self { running: Running::start(command.args(["-c", &script]), &log)?, heard: 0 })
    }

    /// Waits until more has been heard since the last time.
    fn goes_on(&mut self, when: &str) -> Result<()> {
        let before = self.heard;
        self.heard = wait_for(&format!("an answer {when}"), LIMIT, || {
            let log = self.running.log();
            let heard = log.lines().filter(|line| *line == "ask").count();
            if heard > before + 2 { Ok(Some(heard)) } else { Err(Error::answer(when.to_owned(), log)) }
        })?;
        Ok(())
    }
}

fn send(host: &Host, from: &str, to: &str, flags: u8) -> Result<()> {
    let program = programs::built("sluice-testbed")?;
    host.succeed(&program.to_string_lossy(), &["segment", from, to, &flags.to_string()]).map(|_| ())
}

fn a_stray_segment_leaves_a_connection_alone(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let mut echoes = Servers::new();
    for pod in ["web-0", "web-1"] {
        echoes.echo(site.pod(pod).host(), PORT)?;
    }
    let ports = format!("[{{name: echo, port: {PORT}, nodePort: {NODE_PORT}}}]");
    site.cluster.apply("echo.yaml", &beside_web("echo", ECHO, &ports))?;
    for (family, service) in ECHO.into_iter().enumerate() {
        let (client, outside) = (site.client(), site.cluster.outside());
        let own = |host: &Host| -> Result<String> {
            let addresses = host.addresses("eth0")?;
            let address = addresses.iter().find(|ip| ip.is_ipv6() == (family == 1));
            Ok(bracketed(&address.map(ToString::to_string).unwrap_or_default()))
        };
        let cluster = format!("{}:{PORT}", bracketed(service));
        let node = format!("{}:{NODE_PORT}", bracketed(&site.cluster.node(1).addresses()[family]));
        for (host, target, port) in [(client, &cluster, 5900 + family), (outside, &node, 5910 + family)] {
            let port = u16::try_from(port).unwrap_or_default();
            wait_for("the service of echoes", LIMIT, || {
                let asked = host.run("sh", &["-c", &format!("echo ask | socat -t 2 - TCP:{target}")])?;
                Ok((asked.stdout == "ask\n").then_some(()))
            })
            .map_err(|error| site.with_logs(&error))?;
            let mut talk = Talk::start(&site, host, target, port)?;
            talk.goes_on("before anything happened")?;
            let at = format!("{}:{port}", own(host)?);
            for flags in [flag::RST, flag::ACK, flag::SYN | flag::ACK, flag::RST | flag::ACK] {
                // From the client's side, as from a host that was here before it; on the fast path its connection is
                // with the server, and none with the service.
                send(host, &at, target, flags)?;
                talk.goes_on(&format!("after {flags:#x} from {at} to {target}"))
                    .map_err(|error| site.with_logs(&error))?;
                // From each server, of which one has the connection, to whom it sees as its client.
                for pod in ["web-0", "web-1"] {
                    let server = format!("{}:{PORT}", own(site.pod(pod).host())?);
                    // Who comes from outside seems to be the node.
                    let node = bracketed(&site.cluster.node(1).addresses()[family]);
                    let seen = if port < 5910 { at.clone() } else { format!("{node}:{port}") };
                    send(site.pod(pod).host(), &server, &seen, flags)?;
                }
                talk.goes_on(&format!("after {flags:#x} from the servers to {at}"))
                    .map_err(|error| site.with_logs(&error))?;
            }
        }
    }
    Ok(())
}

fn a_port_that_is_used_again_at_once_gets_an_answer_each_time(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let program = programs::built("sluice-testbed")?;
    for (family, address) in WEB.into_iter().enumerate() {
        let cluster = format!("{}:80", bracketed(address));
        let node = format!("{}:{}", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
        let hosts = [
            (site.client(), &cluster),
            (site.cluster.node(1).host(), &cluster),
            (site.client(), &node),
            (site.cluster.outside(), &node),
        ];
        for (host, target) in hosts {
            let arguments = ["again", target, "--from", "6100", "--times", "60"];
            let answers = host.succeed(&program.to_string_lossy(), &arguments);
            let answers = answers.map_err(|error| site.with_logs(&error))?;
            assert_eq!(answers.lines().count(), 60, "{} to {target}", host.name());
            let backends: BTreeSet<_> = answers.lines().collect();
            assert_eq!(
                backends,
                ["web-0", "web-1"].into(),
                "{} to {target}: each choice is a new one",
                host.name()
            );
        }
    }
    Ok(())
}
