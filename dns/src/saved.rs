//! The zone as a file keeps it, for a server that starts before it knows the cluster.
//!
//! ```text
//! {"version":1,"zone":"cluster.local.","addresses":["10.96.0.10"],"clients":[],"namespaces":["default"],"services":[
//!   {"name":"web","namespace":"default","addresses":["10.96.0.20"],
//!    "hosts":[{"label":"10-1-0-5","address":"10.1.0.5"}],
//!    "ports":[{"protocol":"TCP","name":"http","service":80}]}]}
//! ```
//!
//! What a file says is believed only as far as it can be served: a name that is none is passed over.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    desired::{Host, Port, RecordOptions, ServiceRecords, Targets},
    external::ExternalRecords,
    name::{WireName, push_label, write_name},
    records::AddressSet,
    zone::{Origin, Zone},
};

/// Raised when a file of before can no longer be read as one of now.
const VERSION: u32 = 1;

/// A zone on its way to a file or from one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    zone: String,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    clients: Vec<IpNet>,
    namespaces: Vec<String>,
    services: Vec<SavedService>,
    /// Services of a set of clusters; labels of hosts have that of the cluster behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    imports: Vec<SavedService>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SavedService {
    name: String,
    namespace: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    headless: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<SavedHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<SavedPort>,
    /// For those outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    external: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    external_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    external_ports: Vec<SavedPort>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedHost {
    label: String,
    address: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedPort {
    protocol: String,
    name: String,
    /// The port on the service's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<u16>,
    /// Or labels of hosts, with their ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<(String, u16)>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is damaged.
    #[error("not a saved zone")]
    Damaged(#[source] serde_json::Error),
    /// It is of another version of this program.
    #[error("a saved zone of version {0}, not {VERSION}")]
    Version(u32),
}

impl Saved {
    /// Reads a file's content.
    pub fn read(bytes: &[u8]) -> Result<Self, SavedError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(SavedError::Damaged)?;
        if head.version != VERSION {
            return Err(SavedError::Version(head.version));
        }
        serde_json::from_slice(bytes).map_err(SavedError::Damaged)
    }

    /// A file's content.
    pub fn write(&self) -> String {
        // Plain values and texts: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The addresses at which the zone was served.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The clients that were answered; empty: all.
    pub fn clients(&self) -> &[IpNet] {
        &self.clients
    }

    pub(crate) fn of(zone: &Zone, clients: &[IpNet]) -> Self {
        let origin = &zone.origin;
        let mut namespaces: Vec<_> = zone.namespaces().filter_map(|label| text(&label[1..])).collect();
        // In an order, so that the same zone is the same file.
        namespaces.sort_unstable();
        Self {
            version: VERSION,
            zone: origin.name.to_string(),
            addresses: origin.server_v4.addresses().chain(origin.server_v6.addresses()).collect(),
            clients: clients.to_vec(),
            namespaces,
            services: services(zone.services()),
            imports: services(zone.imports()),
        }
    }

    /// The zone, for a server of the same domain.
    pub(crate) fn zone(&self, origin: &Arc<Origin>) -> Option<Zone> {
        if WireName::parse(&self.zone).as_ref() != Some(&origin.name) {
            return None;
        }
        let options = RecordOptions { ttl: 0, ..origin.options.clone() };
        let mut own = Origin { options, ..(**origin).clone() };
        if let Some(external) = &mut own.external {
            external.ttl = 0;
        }
        let mut zone = Zone::new(Arc::new(own));
        zone.is_stale = true;
        for namespace in &self.namespaces {
            if let Some(label) = label(namespace) {
                zone.set_namespace(&label, true);
            }
        }
        for service in &self.services {
            if let Some((key, records)) = service.records() {
                zone.set_service(&key, Some(records));
            }
        }
        for import in self.imports.iter().filter(|_| !origin.multicluster.is_empty()) {
            if let Some((key, records)) = import.records() {
                zone.set_import(&key, Some(records));
            }
        }
        Some(zone)
    }
}

fn text(label: &[u8]) -> Option<String> {
    String::from_utf8(label.to_vec()).ok()
}

fn label(text: &str) -> Option<Arc<[u8]>> {
    let mut label = Vec::new();
    (!text.contains('.') && push_label(&mut label, text.as_bytes())).then(|| label.into())
}

/// Labels in wire form, with dots between them.
fn dotted(labels: &[u8]) -> Option<String> {
    let mut text = String::new();
    write_name(labels, &mut text).ok()?;
    text.strip_suffix('.').map(str::to_owned)
}

/// And back.
fn labels(text: &str) -> Option<Arc<[u8]>> {
    let mut wire = Vec::new();
    text.split('.').all(|label| push_label(&mut wire, label.as_bytes())).then(|| wire.into())
}

/// Services in an order, so that the same zone is the same file.
fn services<'z>(all: impl Iterator<Item = (&'z Arc<[u8]>, &'z Arc<ServiceRecords>)>) -> Vec<SavedService> {
    let mut saved: Vec<_> = all
        .filter(|(_, records)| records.exists)
        .filter_map(|(key, records)| service(key, records))
        .collect();
    saved.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    saved
}

fn service(key: &[u8], records: &ServiceRecords) -> Option<SavedService> {
    let (length, rest) = key.split_first()?;
    let (name, namespace) = rest.split_at_checked(usize::from(*length))?;
    let hosts = records
        .hosts
        .iter()
        .filter_map(|host| Some(SavedHost { label: dotted(&host.label)?, address: host.address }));
    let saved_port = |port: &Port| {
        let (service, hosts) = match &port.targets {
            Targets::Service(number) => (Some(*number), Vec::new()),
            Targets::Hosts(hosts) => {
                let label = |place: u32| dotted(&records.hosts.get(place as usize)?.label);
                (None, hosts.iter().filter_map(|(place, number)| Some((label(*place)?, *number))).collect())
            }
        };
        Some(SavedPort { protocol: port.protocol.to_string(), name: text(&port.name)?, service, hosts })
    };
    let external = records.external.as_deref();
    let outside = external.iter().flat_map(|external| &external.ports);
    Some(SavedService {
        name: text(name)?,
        namespace: text(namespace.get(1..)?)?,
        headless: records.headless,
        alias: records.alias.as_ref().map(ToString::to_string),
        addresses: if records.headless {
            Vec::new()
        } else {
            records.v4.addresses().chain(records.v6.addresses()).collect()
        },
        hosts: hosts.collect(),
        ports: records.ports.iter().filter_map(saved_port).collect(),
        external: external.iter().flat_map(|external| external.addresses()).collect(),
        external_names: external
            .iter()
            .flat_map(|external| &external.names)
            .map(ToString::to_string)
            .collect(),
        external_ports: outside.filter_map(saved_port).collect(),
    })
}

impl SavedService {
    fn records(&self) -> Option<(Arc<[u8]>, ServiceRecords)> {
        let key: Arc<[u8]> = [label(&self.name)?, label(&self.namespace)?].concat().into();
        let host = |host: &SavedHost| Some(Host { label: labels(&host.label)?, address: host.address });
        let mut hosts: Vec<Host> = self.hosts.iter().filter_map(host).collect();
        hosts.sort_unstable_by(|a, b| (&a.label[1..], a.address).cmp(&(&b.label[1..], b.address)));
        let place = |name: &str| {
            let name = labels(name)?;
            let place = hosts.partition_point(|host| host.label[1..] < name[1..]);
            hosts.get(place).is_some_and(|host| host.label == name).then_some(place as u32)
        };
        let port = |port: &SavedPort| {
            let at = |(name, number): &(String, u16)| Some((place(name)?, *number));
            Some(Port {
                protocol: port.protocol.parse().ok()?,
                name: port.name.to_ascii_lowercase().into_bytes().into(),
                targets: match port.service {
                    Some(number) => Targets::Service(number),
                    None => Targets::Hosts(port.hosts.iter().filter_map(at).collect()),
                },
            })
        };
        let ports = self.ports.iter().filter_map(&port).collect();
        let external = ExternalRecords::of(
            self.external.clone(),
            self.external_names.iter().filter_map(|name| WireName::parse(name)).collect(),
            self.external_ports.iter().filter_map(&port).collect(),
            0,
        );
        let addresses: Vec<IpAddr> = if self.headless {
            hosts.iter().map(|host| host.address).collect()
        } else {
            self.addresses.clone()
        };
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        let records = ServiceRecords {
            exists: !self.headless || !hosts.is_empty(),
            headless: self.headless,
            alias: self.alias.as_deref().and_then(WireName::parse),
            v4: AddressSet::new(v4, 0),
            v6: AddressSet::new(v6, 0),
            hosts: hosts.into(),
            ports,
            external: external.map(Box::new),
            zones: Box::default(),
        };
        Some((key, records))
    }
}
