//! Ports of the node that lead to attachments: their form in a record, and who has which.
//!
//! A port belongs to the attachment whose record names it. There is no second place where that is noted and that
//! could be left behind; whoever wants a port reads the records of all networks, under one lock for all of them
//! that is held until its own record is written.

use std::{
    fmt,
    fs::{File, OpenOptions},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sluice_ebpf_common::{
    Addr, Backend, Be16, FrontendKey, HOST_PORT_MASQUERADE, PROTO_SCTP, PROTO_TCP, PROTO_UDP,
};

use super::{Attachment, Result, StoreError, boot_directory, failed, list, lock::lock};

/// The name of the lock, in the directory of the boot. No network is called so: their names start otherwise.
const LOCK: &str = "_host-ports";

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IANA's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => PROTO_TCP,
            Self::Udp => PROTO_UDP,
            Self::Sctp => PROTO_SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The node's port.
    pub host_port: u16,
    /// The attachment's port.
    pub container_port: u16,
    /// The one address of the node that it holds for; the unspecified address of a family stands for all of that
    /// family, `None` for all of both.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.host_port)?;
        self.host_ip.map_or(Ok(()), |address| write!(f, " on {address}"))
    }
}

impl HostPort {
    /// The node's addresses that it holds for: one, or one unspecified for each family.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let one = self.host_ip;
        one.into_iter().chain(any.into_iter().filter(move |_| one.is_none()))
    }

    /// Whether a packet could be meant for both: the same protocol and port, and the same address or, in one of
    /// them, every address of the family.
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.protocol, self.host_port) == (other.protocol, other.host_port)
            && self.addresses().any(|own| other.addresses().any(|theirs| same(own, theirs)))
    }
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// A mapping of one family: from where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapping {
    /// IANA's number.
    pub protocol: u8,
    /// The node's address, unspecified for all of the family.
    pub host_ip: IpAddr,
    /// The node's port.
    pub host_port: u16,
    /// The attachment's address, of the same family.
    pub address: IpAddr,
    /// The attachment's port.
    pub port: u16,
    /// Whether whoever comes by it is masqueraded.
    pub masquerade: bool,
    /// Whether not everybody may come by it.
    pub conditional: bool,
}

impl Mapping {
    /// The mapping as the datapath has it, if it is the datapath's.
    fn entry(&self) -> (FrontendKey, Backend) {
        let key = FrontendKey {
            addr: Addr::from(self.host_ip),
            port: Be16::from_host(self.host_port),
            proto: u16::from(self.protocol),
            pad: 0,
        };
        let backend = Backend {
            addr: Addr::from(self.address),
            port: Be16::from_host(self.port),
            pad: 0,
            service: if self.masquerade { HOST_PORT_MASQUERADE } else { 0 },
        };
        (key, backend)
    }
}

impl Attachment {
    /// Who may use the host ports of a family; empty, where everybody may.
    pub(crate) fn conditions(&self, v4: bool) -> &[String] {
        if v4 { &self.conditions_v4 } else { &self.conditions_v6 }
    }

    /// The entries of its host ports in the datapath.
    pub fn port_entries(&self) -> Vec<(FrontendKey, Backend)> {
        self.mappings().iter().filter(|mapping| !mapping.conditional).map(Mapping::entry).collect()
    }

    /// The ports of the node that lead here, one for each family of the attachment that is meant.
    pub fn mappings(&self) -> Vec<Mapping> {
        let first =
            |v4: bool| self.addresses.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv4() == v4);
        let of = |port: &HostPort| {
            let HostPort { protocol, host_port, container_port, .. } = *port;
            port.addresses()
                .filter_map(move |host_ip| {
                    Some(Mapping {
                        protocol: protocol.number(),
                        host_ip,
                        host_port,
                        address: first(host_ip.is_ipv4())?,
                        port: container_port,
                        masquerade: self.masquerade,
                        conditional: !self.conditions(host_ip.is_ipv4()).is_empty(),
                    })
                })
                .collect::<Vec<_>>()
        };
        self.host_ports.iter().flat_map(of).collect()
    }
}

/// What keeps others from choosing ports, until it is dropped.
#[derive(Debug)]
pub struct PortLock(#[expect(dead_code, reason = "it is locked while it is open")] File);

/// Makes sure that nobody has the host ports of `record`, which is not written yet. To be written while what is
/// returned lives. `gone` tells of an attachment that wanted one whether nothing is left of it but its record.
pub fn claim_ports(
    state_dir: &Path,
    record: &Attachment,
    mut gone: impl FnMut(&Attachment) -> bool,
) -> Result<PortLock> {
    let path = boot_directory(state_dir)?.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed("open", &path))?;
    lock(&file, &path)?;
    let own = |other: &Attachment| {
        (&other.container_id, &other.ifname, &other.network)
            == (&record.container_id, &record.ifname, &record.network)
    };
    // Whose record is damaged is not known to have a port; CHECK of that attachment says so.
    for other in list(state_dir)?.attachments.iter().filter(|other| !own(other)) {
        let wanted = |theirs: &&HostPort| record.host_ports.iter().any(|port| port.overlaps(theirs));
        if let Some(theirs) = other.host_ports.iter().find(wanted).filter(|_| !gone(other)) {
            let pod = other.pod.as_ref().map(|pod| format!(" (pod {}/{})", pod.namespace, pod.name));
            let holder = format!("{}:{}{}", other.container_id, other.ifname, pod.unwrap_or_default());
            return Err(StoreError::PortTaken { port: theirs.to_string(), holder });
        }
    }
    Ok(PortLock(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host_port: u16, host_ip: &str) -> HostPort {
        HostPort { protocol, host_port, container_port: 80, host_ip: host_ip.parse().ok() }
    }

    #[test]
    fn ports_overlap_as_the_scheduler_has_it() {
        let tcp = |host_ip| port(Protocol::Tcp, 80, host_ip);
        for (one, other, expected) in [
            (tcp(""), tcp(""), true),
            (tcp(""), tcp("192.0.2.1"), true),
            (tcp("0.0.0.0"), tcp("192.0.2.1"), true),
            (tcp("::"), tcp("192.0.2.1"), false),
            (tcp(""), tcp("::"), true),
            (tcp("192.0.2.2"), tcp("192.0.2.1"), false),
            (tcp("192.0.2.1"), tcp("192.0.2.1"), true),
            (tcp(""), port(Protocol::Udp, 80, ""), false),
            (tcp(""), port(Protocol::Tcp, 81, ""), false),
        ] {
            assert_eq!(one.overlaps(&other), expected, "{one} and {other}");
            assert_eq!(other.overlaps(&one), expected, "{other} and {one}");
        }
    }

    #[test]
    fn a_port_leads_to_the_first_address_of_its_family() {
        let mut record = crate::store::tests::attachment("c1");
        record.addresses =
            ["10.1.0.2/24", "fd00::2/64", "10.2.0.2/24"].map(|text| text.parse().unwrap()).into();
        record.host_ports = vec![port(Protocol::Tcp, 8080, ""), port(Protocol::Udp, 53, "192.0.2.1")];
        let said = |record: &Attachment| -> Vec<_> {
            let line = |m: &Mapping| {
                format!("{} {} {} {} {}", m.protocol, m.host_ip, m.host_port, m.address, m.port)
            };
            record.mappings().iter().map(line).collect()
        };
        let expected = ["6 0.0.0.0 8080 10.1.0.2 80", "6 :: 8080 fd00::2 80", "17 192.0.2.1 53 10.1.0.2 80"];
        assert_eq!(said(&record), expected);
        record.addresses.remove(1);
        assert_eq!(said(&record).len(), 2, "no IPv6 address, no IPv6 port");
        let (key, backend) = record.mappings()[0].entry();
        assert_eq!((key.addr, key.port.to_host(), key.proto), (Addr::ANY_V4, 8080, 6));
        assert_eq!((backend.port.to_host(), backend.service), (80, 0));
        record.masquerade = true;
        assert_eq!(record.mappings()[0].entry().1.service, HOST_PORT_MASQUERADE);
        assert_eq!(record.port_entries().len(), 2);
        record.conditions_v4 = vec!["-s 192.0.2.0/24".to_owned()];
        assert!(
            record.port_entries().is_empty() && record.mappings().iter().all(|mapping| mapping.conditional)
        );
    }

    #[test]
    fn a_taken_port_is_refused_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let network = crate::store::Network::open(directory.path(), "net").unwrap();
        let mut record = crate::store::tests::attachment("c1");
        record.host_ports = vec![port(Protocol::Tcp, 8080, "192.0.2.1")];
        let claim = |record: &Attachment, gone| claim_ports(directory.path(), record, |_| gone);
        drop(claim(&record, false).unwrap());
        let mut held = network.create("c1", "eth0").unwrap();
        network.record(&mut held, record.clone()).unwrap();
        drop(claim(&record, false).unwrap());
        let mut other = crate::store::tests::attachment("c2");
        other.host_ports = vec![port(Protocol::Tcp, 8080, "")];
        let error = claim(&other, false).unwrap_err().to_string();
        assert_eq!(error, "host port tcp/8080 on 192.0.2.1 is held by c1:eth0 (pod shop/c1)");
        drop(claim(&other, true).unwrap());
        other.host_ports = vec![port(Protocol::Tcp, 8080, "192.0.2.2"), port(Protocol::Udp, 8080, "")];
        drop(claim(&other, false).unwrap());
        network.remove(held).unwrap();
    }
}
