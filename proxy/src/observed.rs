//! What the services' maps hold, and the operations that change them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use sluice_ebpf_common::{Addr, Backend, Frontend, FrontendKey, MemberKey, Service, SlotKey};

/// One change of one map entry: the unit that a packet may come between.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the map's verb, key and value")]
pub enum MapOp {
    /// Marks ids as handed out, before any of them is used.
    PutIds {
        next_service: u64,
        next_backend: u64,
    },
    PutBackend {
        id: u32,
        backend: Backend,
    },
    PutSlot {
        key: SlotKey,
        backend: u32,
    },
    PutService {
        id: u32,
        service: Service,
    },
    PutMember {
        key: MemberKey,
        backend: u32,
    },
    PutSourceRange {
        range: SourceRange,
    },
    PutFrontend {
        key: FrontendKey,
        frontend: Frontend,
    },
    RemoveFrontend {
        key: FrontendKey,
    },
    RemoveSourceRange {
        range: SourceRange,
    },
    RemoveService {
        id: u32,
    },
    RemoveSlot {
        key: SlotKey,
    },
    RemoveMember {
        key: MemberKey,
    },
    RemoveBackend {
        id: u32,
    },
}

/// An entry of map `source_ranges`: clients of `service` may come from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRange {
    /// The service's id.
    pub service: u32,
    /// The network's address.
    pub client: Addr,
    /// Its prefix length over 128 bits.
    pub prefix: u32,
}

impl fmt::Display for MapOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutIds { next_service, next_backend } => {
                write!(f, "ids: next service {next_service}, next backend {next_backend}")
            }
            Self::PutBackend { id, backend } => {
                write!(f, "backend {id} = {}", endpoint(backend.addr, backend.port.to_host()))
            }
            Self::PutSlot { key, backend } => {
                write!(f, "slot {}/{} = backend {backend}", key.service, key.index)
            }
            Self::PutService { id, service } => {
                write!(f, "service {id} = {} slots, flags {:#x}", service.count, service.flags)
            }
            Self::PutFrontend { key, frontend } => {
                write!(
                    f,
                    "frontend {} = service {}, flags {:#x}",
                    Shown(key),
                    frontend.service,
                    frontend.flags
                )
            }
            Self::PutMember { key, backend } => {
                write!(
                    f,
                    "member {}/{} = backend {backend}",
                    key.service,
                    endpoint(key.addr, key.port.to_host())
                )
            }
            Self::PutSourceRange { range: r } => {
                write!(f, "source range {}/{}/{}", r.service, r.client, r.prefix)
            }
            Self::RemoveSourceRange { range: r } => {
                write!(f, "remove source range {}/{}/{}", r.service, r.client, r.prefix)
            }
            Self::RemoveMember { key } => {
                write!(f, "remove member {}/{}", key.service, endpoint(key.addr, key.port.to_host()))
            }
            Self::RemoveFrontend { key } => write!(f, "remove frontend {}", Shown(key)),
            Self::RemoveService { id } => write!(f, "remove service {id}"),
            Self::RemoveSlot { key } => write!(f, "remove slot {}/{}", key.service, key.index),
            Self::RemoveBackend { id } => write!(f, "remove backend {id}"),
        }
    }
}

/// A frontend's key as people write it: `10.96.0.1:443/6`.
pub(crate) struct Shown<'a>(pub(crate) &'a FrontendKey);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol: &dyn fmt::Display = match self.0.proto {
            // The address as a whole.
            0 => return write!(f, "{}", std::net::IpAddr::from(self.0.addr)),
            6 => &"TCP",
            17 => &"UDP",
            132 => &"SCTP",
            ref other => other,
        };
        write!(f, "{}/{protocol}", endpoint(self.0.addr, self.0.port.to_host()))
    }
}

fn endpoint(addr: sluice_ebpf_common::Addr, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(addr.into(), port)
}

/// A copy of the services' maps: read back from the kernel on start and on repair, and kept in step with every
/// operation that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Map `frontends`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Map `services`.
    pub services: BTreeMap<u32, Service>,
    /// Map `slots`.
    pub slots: BTreeMap<SlotKey, u32>,
    /// Map `backends`.
    pub backends: BTreeMap<u32, Backend>,
    /// Map `members`.
    pub members: BTreeMap<MemberKey, u32>,
    /// Map `source_ranges`.
    pub source_ranges: BTreeSet<SourceRange>,
    /// Map `ids`: the next service's id.
    pub next_service: u64,
    /// Map `ids`: the next backend's id.
    pub next_backend: u64,
    /// Which frontends name a service, so that a service's part is found without a search.
    frontends_of: BTreeSet<(u32, FrontendKey)>,
    /// Which backends belong to a service.
    backends_of: BTreeSet<(u32, u32)>,
}

impl Observed {
    /// Applies an operation to the copy.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::PutIds { next_service, next_backend } => {
                self.next_service = *next_service;
                self.next_backend = *next_backend;
            }
            MapOp::PutBackend { id, backend } => {
                if let Some(old) = self.backends.insert(*id, *backend) {
                    self.backends_of.remove(&(old.service, *id));
                }
                self.backends_of.insert((backend.service, *id));
            }
            MapOp::PutSlot { key, backend } => {
                self.slots.insert(*key, *backend);
            }
            MapOp::PutService { id, service } => {
                self.services.insert(*id, *service);
            }
            MapOp::PutFrontend { key, frontend } => {
                if let Some(old) = self.frontends.insert(*key, *frontend) {
                    self.frontends_of.remove(&(old.service, *key));
                }
                self.frontends_of.insert((frontend.service, *key));
            }
            MapOp::PutMember { key, backend } => {
                self.members.insert(*key, *backend);
            }
            MapOp::PutSourceRange { range } => {
                self.source_ranges.insert(*range);
            }
            MapOp::RemoveSourceRange { range } => {
                self.source_ranges.remove(range);
            }
            MapOp::RemoveMember { key } => {
                self.members.remove(key);
            }
            MapOp::RemoveFrontend { key } => {
                if let Some(old) = self.frontends.remove(key) {
                    self.frontends_of.remove(&(old.service, *key));
                }
            }
            MapOp::RemoveService { id } => {
                self.services.remove(id);
            }
            MapOp::RemoveSlot { key } => {
                self.slots.remove(key);
            }
            MapOp::RemoveBackend { id } => {
                if let Some(old) = self.backends.remove(id) {
                    self.backends_of.remove(&(old.service, *id));
                }
            }
        }
    }

    /// The maps that differ from those of another copy.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let maps = [
            ("frontends", self.frontends != other.frontends),
            ("services", self.services != other.services),
            ("slots", self.slots != other.slots),
            ("backends", self.backends != other.backends),
            ("members", self.members != other.members),
            ("source_ranges", self.source_ranges != other.source_ranges),
            ("ids", (self.next_service, self.next_backend) != (other.next_service, other.next_backend)),
        ];
        maps.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The frontends that name a service.
    pub fn frontends_of(&self, service: u32) -> impl Iterator<Item = FrontendKey> + '_ {
        let first = FrontendKey::default();
        self.frontends_of
            .range((service, first)..)
            .take_while(move |(id, _)| *id == service)
            .map(|(_, key)| *key)
    }

    /// The ids of a service's backends, in slots or not.
    pub fn backends_of(&self, service: u32) -> impl Iterator<Item = u32> + '_ {
        self.backends_of.range((service, 0)..=(service, u32::MAX)).map(|(_, id)| *id)
    }

    /// A service's slots, in order.
    pub fn slots_of(&self, service: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let range = SlotKey { service, index: 0 }..=SlotKey { service, index: u32::MAX };
        self.slots.range(range).map(|(key, backend)| (key.index, *backend))
    }

    /// A service's members.
    pub fn members_of(&self, service: u32) -> impl Iterator<Item = MemberKey> + '_ {
        let first = MemberKey { service, ..MemberKey::default() };
        self.members.range(first..).take_while(move |(key, _)| key.service == service).map(|(key, _)| *key)
    }

    /// The networks that a service's clients may come from.
    pub fn source_ranges_of(&self, service: u32) -> impl Iterator<Item = SourceRange> + '_ {
        let first = SourceRange { service, client: Addr::ANY_V6, prefix: 0 };
        self.source_ranges.range(first..).take_while(move |range| range.service == service).copied()
    }

    /// Every id that some entry names: the services known, and those that remains speak of.
    pub fn service_ids(&self) -> BTreeSet<u32> {
        let frontends = self.frontends.values().map(|frontend| frontend.service);
        let slots = self.slots.keys().map(|key| key.service);
        let backends = self.backends.values().map(|backend| backend.service);
        let members = self.members.keys().map(|key| key.service);
        let ranges = self.source_ranges.iter().map(|range| range.service);
        self.services
            .keys()
            .copied()
            .chain(frontends)
            .chain(slots)
            .chain(backends)
            .chain(members)
            .chain(ranges)
            .collect()
    }
}
