//! What a domain of a master file has for a name (RFC 1034, 4.3.2; RFC 4592; RFC 6672).

use super::{
    FileZone,
    zone::{Node, canonical},
};
use crate::{query::QueryName, wire::rtype};

/// What there is for a name.
#[derive(Debug)]
pub(super) enum Hit<'z> {
    /// The name itself, or the wildcard that stands for it.
    Node(&'z Node, Stand),
    /// It is others', from this name on.
    Cut(&'z Node),
    /// All names below this one lead elsewhere.
    Led(&'z Node),
    /// There is no such name.
    Nothing,
}

/// How a node was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is the name.
    Itself,
    /// It stands for the name.
    Wildcard,
}

impl FileZone {
    /// What there is for a name, which is below the domain's.
    pub(super) fn find(&self, name: &QueryName, qtype: u16) -> Hit<'_> {
        let exact = self.node(name.as_bytes());
        let closest = exact.or_else(|| (1..=name.count()).find_map(|n| self.node(name.from(n))));
        let Some((place, node)) = closest else { return Hit::Nothing };
        if let Some(above) = node.above {
            let Some(holder) = self.nodes.get(above as usize) else { return Hit::Nothing };
            if holder.set(rtype::DNAME).is_some()
                && holder.set(rtype::NS).is_none_or(|_| holder.name == self.origin)
            {
                return Hit::Led(holder);
            }
            // Whether the name's own domain is signed is for this one to say.
            if !(qtype == rtype::DS && exact.is_some() && above == place) {
                return Hit::Cut(holder);
            }
        }
        if exact.is_some() {
            return Hit::Node(node, Stand::Itself);
        }
        if node.set(rtype::DNAME).is_some() {
            return Hit::Led(node);
        }
        match node.wildcard.and_then(|place| self.nodes.get(place as usize)) {
            Some(wildcard) => Hit::Node(wildcard, Stand::Wildcard),
            None => Hit::Nothing,
        }
    }

    /// Whether there is nothing for a name: it does not exist, or only between others.
    pub(crate) fn denies(&self, name: &QueryName) -> bool {
        match self.find(name, rtype::ANY) {
            Hit::Nothing => true,
            Hit::Node(node, _) => node.sets.is_empty(),
            _ => false,
        }
    }

    /// Whether a name is delegated.
    pub(crate) fn is_cut(&self, name: &QueryName) -> bool {
        self.node(name.as_bytes()).is_some_and(|(place, node)| node.above == Some(place))
    }

    /// Whether what is said of a name and a type is this domain's to say.
    pub(crate) fn serves(&self, name: &QueryName, qtype: u16) -> bool {
        !matches!(self.find(name, qtype), Hit::Cut(_))
    }

    /// The last name in canonical order, at or before this one, that has an NSEC record.
    pub(super) fn before(&self, name: &[u8]) -> Option<&Node> {
        let wanted = canonical(name);
        let is_before = |place: &u32| {
            self.nodes.get(*place as usize).is_some_and(|node| canonical(node.name.as_bytes()) <= wanted)
        };
        let count = self.chain.partition_point(is_before);
        // Before the first is the last.
        let place = self.chain.get(count.checked_sub(1).unwrap_or(self.chain.len().checked_sub(1)?))?;
        self.nodes.get(*place as usize)
    }
}
