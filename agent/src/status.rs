//! `sluice status`: how this node is, for a person. Asks the agent, if one answers, and looks at what is there without
//! one: what is pinned, the pods that are attached, the runtime's configuration. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use sluice_cni::{node::NodeConfig, store};
use sluice_proxy::{Observed, PinnedStore, Pins};

use crate::{config::Config, conflist, failure::Chain};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a node is.
#[derive(Debug)]
pub struct Status {
    /// For people; ends with a line's end.
    pub text: String,
    /// The agent answers, and says that all is well.
    pub healthy: bool,
}

/// How this node is; `services` adds what each address of a service leads to.
pub fn status(config: &Config, services: bool) -> Status {
    let pins = Pins::new(&config.bpffs_dir);
    let (agent, healthy) = agent(config, pins.root().is_dir());
    let mut lines = vec![("agent", agent)];
    if let Some(troubles) = config.metrics_address.and_then(|address| get(address, "/statusz").ok()) {
        lines.extend(
            troubles
                .1
                .lines()
                .filter_map(|line| Some(("trouble", line.strip_prefix("Trouble: ")?.to_owned()))),
        );
    }
    lines.push(("node", description(config)));
    lines.push(("pods", pods(config)));
    lines.push(("programs", programs(&pins)));
    let observed = match pins.root().is_dir() {
        true => PinnedStore::open(&pins).map_err(|error| Chain(&error).to_string()).and_then(|store| {
            use sluice_proxy::MapStore as _;
            store.dump().map_err(|error| Chain(&error).to_string())
        }),
        false => Ok(Observed::default()),
    };
    lines.push((
        "services",
        observed.as_ref().map_or_else(|error| format!("cannot be read: {error}"), counted),
    ));
    lines.push(("runtime", runtime(config)));
    let mut text = String::new();
    for (what, line) in lines {
        let _infallible = writeln!(text, "{what:<9} {line}");
    }
    if let Ok(observed) = observed.as_ref()
        && services
    {
        text += &listed(observed);
    }
    Status { text, healthy }
}

/// What the agent says of itself. `at_work`: there is a datapath.
fn agent(config: &Config, at_work: bool) -> (String, bool) {
    let Some(address) = config.healthz_address else {
        return ("healthzAddress is none: it cannot be asked".to_owned(), false);
    };
    match get(address, "/healthz") {
        Ok((code, body)) => {
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            let mut line = if code == 200 { "healthy".to_owned() } else { format!("not healthy ({code})") };
            if body["nodeEligible"] == false {
                line += "; the node is leaving";
            }
            if let Some(since) = body["apiLastContact"].as_str() {
                line += &format!("; the API was last heard at {since}");
            }
            (line, code == 200)
        }
        Err(error) => {
            let rest = if at_work { "; the datapath goes on without it" } else { "" };
            (format!("does not answer at {address}: {error}{rest}"), false)
        }
    }
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    // Where everybody is listened to, one asks oneself.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.map(|code| (code, body.to_owned())).ok_or_else(|| std::io::Error::other("the answer is no HTTP"))
}

fn description(config: &Config) -> String {
    match NodeConfig::read(&config.state_dir) {
        Ok(Some(node)) => {
            let networks: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
            let mtu = node.mtu.map(|mtu| format!(", packets of {mtu} bytes")).unwrap_or_default();
            format!("{}: pods in {}{mtu}", config.node_name, networks.join(", "))
        }
        Ok(None) => format!("{}: no pod can be attached yet", config.node_name),
        Err(error) => format!("{}: {}", config.node_name, Chain(&error)),
    }
}

fn pods(config: &Config) -> String {
    match store::list(&config.state_dir) {
        Ok(list) if list.damaged.is_empty() => format!("{} attached", list.attachments.len()),
        Ok(list) => {
            format!("{} attached; {} records are damaged", list.attachments.len(), list.damaged.len())
        }
        Err(error) => Chain(&error).to_string(),
    }
}

fn programs(pins: &Pins) -> String {
    if !pins.root().is_dir() {
        return format!("none are pinned in {}", pins.root().display());
    }
    match pins.links() {
        Ok(links) => {
            let mut devices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (program, device) in links {
                devices.entry(program).or_default().insert(device);
            }
            let each = devices.iter().map(|(program, devices)| match devices.len() {
                0..=4 => format!("{program} on {}", devices.iter().cloned().collect::<Vec<_>>().join(" ")),
                count => format!("{program} on {count} devices"),
            });
            each.collect::<Vec<_>>().join(", ")
        }
        Err(error) => Chain(&error).to_string(),
    }
}

fn counted(observed: &Observed) -> String {
    let ports = observed.frontends.keys().filter(|key| key.proto != 0).count();
    format!("{ports} addresses and ports, {} endpoints", observed.backends.len())
}

fn runtime(config: &Config) -> String {
    let Some(folder) = &config.cni_conf_dir else { return "is not told (cniConfDir)".to_owned() };
    let ours = folder.join(conflist::FILE);
    let mut line = match ours.is_file() {
        true => format!("{} is there", ours.display()),
        false => format!("{} is not there", ours.display()),
    };
    match conflist::others(folder) {
        Ok(others) => {
            for other in others {
                let place = if other.wins { "goes before it" } else { "comes after it" };
                line += &format!("; {} {place}", other.path.display());
            }
        }
        Err(error) => line += &format!("; {}", Chain(&error)),
    }
    line
}

/// Each address of a service with the endpoints that it leads to.
fn listed(observed: &Observed) -> String {
    let mut text = String::new();
    let endpoints = |service: u32| -> Vec<String> {
        let backends = observed.slots_of(service).filter_map(|(_, id)| observed.backends.get(&id));
        let mut list: Vec<_> = backends
            .map(|backend| SocketAddr::new(backend.addr.into(), backend.port.to_host()).to_string())
            .collect();
        list.sort();
        list
    };
    for (key, frontend) in observed.frontends.iter().filter(|(key, _)| key.proto != 0) {
        let address = SocketAddr::new(key.addr.into(), key.port.to_host());
        let protocol = match key.proto {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            132 => "SCTP".to_owned(),
            other => other.to_string(),
        };
        let named = |list: Vec<String>| if list.is_empty() { "nobody".to_owned() } else { list.join(" ") };
        let _infallible = write!(text, "{address}/{protocol} -> {}", named(endpoints(frontend.service)));
        if frontend.local != 0 {
            let _infallible = write!(text, "; of this node: {}", named(endpoints(frontend.local)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use sluice_ebpf_common::{Backend, Be16, Frontend, FrontendKey, SlotKey};
    use sluice_proxy::MapOp;

    use super::*;

    #[test]
    fn services_are_listed_with_their_endpoints() {
        let mut observed = Observed::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let key = |text: &str, port| FrontendKey {
            addr: address(text),
            port: Be16::from_host(port),
            proto: if port == 0 { 0 } else { 6 },
            ..FrontendKey::default()
        };
        for (id, ip) in [(7, "10.1.0.3"), (8, "10.1.0.2")] {
            let backend =
                Backend { addr: address(ip), port: Be16::from_host(8080), service: 1, ..Backend::default() };
            observed.apply(&MapOp::PutBackend { id, backend });
            observed.apply(&MapOp::PutSlot { key: SlotKey { service: 1, index: id - 7 }, backend: id });
        }
        let frontend = |service, local| Frontend { service, local, ..Frontend::default() };
        for (key, frontend) in [
            (key("10.96.0.1", 80), frontend(1, 0)),
            (key("10.96.0.1", 0), frontend(1, 0)),
            (key("fd00::1", 80), frontend(1, 2)),
            (key("10.96.0.9", 443), frontend(3, 0)),
        ] {
            observed.apply(&MapOp::PutFrontend { key, frontend });
        }
        assert_eq!(counted(&observed), "3 addresses and ports, 2 endpoints");
        let listed = listed(&observed);
        for line in [
            "10.96.0.1:80/TCP -> 10.1.0.2:8080 10.1.0.3:8080",
            "10.96.0.9:443/TCP -> nobody",
            "[fd00::1]:80/TCP -> 10.1.0.2:8080 10.1.0.3:8080; of this node: nobody",
        ] {
            assert!(listed.lines().any(|found| found == line), "{line} in {listed}");
        }
        assert_eq!(listed.lines().count(), 3);
    }
}
