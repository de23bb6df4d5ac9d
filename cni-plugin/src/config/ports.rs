//! The capability `portMappings`: ports of the node that lead to the container.

use std::net::IpAddr;

use serde::Deserialize;

use crate::{
    error::{Code, Error, Result},
    store::{HostPort, Protocol},
};

/// A mapping, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortMapping {
    #[serde(default)]
    host_port: i64,
    #[serde(default)]
    container_port: i64,
    /// `tcp` if it is left out.
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

/// The mappings that mean something, each once.
pub(super) fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>> {
    let mut ports: Vec<HostPort> = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        // A kubelet writes the ports that are only the container's own with host port 0.
        if mapping.host_port == 0 {
            continue;
        }
        let port = host_port(&format!("runtimeConfig.portMappings[{index}]"), mapping)?;
        if ports.contains(&port) {
            continue;
        }
        if let Some(other) = ports.iter().find(|other| other.overlaps(&port)) {
            return Err(Error::config(format!(
                "runtimeConfig.portMappings: host port {port} leads to {} and to {}",
                other.container_port, port.container_port
            )));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn host_port(field: &str, mapping: &PortMapping) -> Result<HostPort> {
    let number = |name: &str, value: i64| match u16::try_from(value) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(Error::config(format!("{field}.{name}: {value} is not a port"))),
    };
    let text = mapping.protocol.as_deref().unwrap_or_default();
    let protocol = match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let msg = format!("{field}.protocol: {text:?} is not one of tcp, udp, sctp");
            return Err(Error::new(Code::UnsupportedField, msg));
        }
    };
    let host_ip = match mapping.host_ip.as_deref() {
        None | Some("") => None,
        Some(text) => {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Error::config(format!("{field}.hostIP: {text:?} is not an address")))?;
            Some(address.to_canonical())
        }
    };
    Ok(HostPort {
        protocol,
        host_port: number("hostPort", mapping.host_port)?,
        container_port: number("containerPort", mapping.container_port)?,
        host_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<String>> {
        let mappings: Vec<PortMapping> = serde_json::from_str(json).unwrap();
        host_ports(&mappings)
            .map(|ports| ports.iter().map(|port| format!("{port} {}", port.container_port)).collect())
    }

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        let ports = read(
            r#"[{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":""},{"hostPort":0,"containerPort":9},
                {"hostPort":8080,"containerPort":80},{"hostPort":8080,"containerPort":53,"protocol":"udp"},
                {"hostPort":9,"containerPort":1,"hostIP":"127.0.0.1"},{"hostPort":9,"containerPort":2,"hostIP":"::"}]"#,
        );
        let expected = ["tcp/8080 80", "udp/8080 53", "tcp/9 on 127.0.0.1 1", "tcp/9 on :: 2"];
        assert_eq!(ports.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (json, expected) in [
            (
                r#"[{"hostPort":65536,"containerPort":1}]"#,
                "runtimeConfig.portMappings[0].hostPort: 65536 is not a port",
            ),
            (r#"[{"hostPort":1}]"#, "runtimeConfig.portMappings[0].containerPort: 0 is not a port"),
            (
                r#"[{"hostPort":1,"containerPort":1,"protocol":"icmp"}]"#,
                "runtimeConfig.portMappings[0].protocol: \"icmp\" is not one of tcp, udp, sctp",
            ),
            (
                r#"[{"hostPort":1,"containerPort":1,"hostIP":"here"}]"#,
                "runtimeConfig.portMappings[0].hostIP: \"here\" is not an address",
            ),
            (
                r#"[{"hostPort":1,"containerPort":1,"hostIP":"10.0.0.1"},{"hostPort":1,"containerPort":2}]"#,
                "runtimeConfig.portMappings: host port tcp/1 leads to 1 and to 2",
            ),
        ] {
            assert_eq!(read(json).unwrap_err().msg, expected);
        }
    }
}
