//! Flows that the kernel's connection tracking remembers, and that it should forget.
//!
//! A packet of a flow that it knows is translated as the flow's first one was, whatever rules have come or gone since.
//! A TCP connection to something that is gone ends by itself. A UDP flow does not end as long as its client
//! sends.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use nix::errno::Errno;

use crate::{
    Result,
    attributes::{self, Malformed},
    nft::wire::{PacketFilter, attribute, is, is_unknown, nested},
    socket::Action,
};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// IANA's number of UDP.
pub const UDP: u8 = 17;

/// A flow that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// IANA's number.
    pub protocol: u8,
    /// Where its first packet was sent to.
    pub destination: SocketAddr,
    /// Where it is led, and answers come from: the destination, unless that is translated.
    pub backend: SocketAddr,
}

/// A flow, with what it is deleted by.
struct Entry {
    family: u8,
    tracked: Tracked,
    /// The attributes that name it, as they came.
    name: Vec<u8>,
}

/// Makes connection tracking forget the flows that `unwanted` says: the next packet of one begins a new one. Says how
/// many there were. Where the kernel tracks no connections there are none.
pub fn forget(filter: &mut PacketFilter, unwanted: impl Fn(&Tracked) -> bool) -> Result<usize> {
    let action = Action { verb: "list", object: &"tracked connections" };
    let mut entries = Vec::new();
    let mut failed = None;
    let listed =
        filter.dump(0, (GET, NLM_F_DUMP, Vec::new()), |family, message| match parse(family, message) {
            Ok(entry) => entries.extend(entry.filter(|entry| unwanted(&entry.tracked))),
            Err(error) => failed = Some(error),
        });
    match listed {
        // So the kernel answers for parts of itself that it does not have.
        Err(error) if is_unknown(&error) || is(&error, &[Errno::EINVAL]) => return Ok(0),
        Err(error) => return Err(action.io(error)),
        Ok(()) => {}
    }
    if let Some(Malformed(reason)) = failed {
        return Err(action.io(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    let action = Action { verb: "forget", object: &"a tracked connection" };
    for entry in &entries {
        match filter.get(entry.family, (DELETE, NLM_F_ACK, entry.name.clone())) {
            // It ended meanwhile.
            Err(error) if !is(&error, &[Errno::ENOENT]) => return Err(action.io(error)),
            _ => {}
        }
    }
    Ok(entries.len())
}

/// One end of a direction.
#[derive(Default)]
struct Tuple {
    protocol: u8,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: u16,
    destination_port: u16,
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut tuple = Self::default();
        attributes::for_each(bytes, |part, value| {
            attributes::for_each(value, |kind, value| {
                match (part, kind) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => {
                        tuple.source = Some(attributes::address(value)?);
                    }
                    (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => {
                        tuple.destination = Some(attributes::address(value)?);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => tuple.protocol = attributes::u8(value)?,
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => {
                        tuple.source_port = u16::from_be(attributes::u16(value)?);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                        tuple.destination_port = u16::from_be(attributes::u16(value)?);
                    }
                    _ => {}
                }
                Ok(())
            })
        })?;
        Ok(tuple)
    }
}

/// `None` for what is not between addresses.
fn parse(family: u8, message: &[u8]) -> Result<Option<Entry>, Malformed> {
    let (mut original, mut reply, mut name) = (Tuple::default(), Tuple::default(), Vec::new());
    attributes::for_each(message, |kind, value| {
        match kind {
            CTA_TUPLE_ORIG => {
                original = Tuple::parse(value)?;
                name.extend(nested(kind, &[value.to_vec()]));
            }
            CTA_TUPLE_REPLY => reply = Tuple::parse(value)?,
            CTA_ID | CTA_ZONE => name.extend(attribute(kind, value)),
            _ => {}
        }
        Ok(())
    })?;
    let ends = original.destination.zip(reply.source);
    Ok(ends.map(|(destination, backend)| Entry {
        family,
        tracked: Tracked {
            protocol: original.protocol,
            destination: SocketAddr::new(destination, original.destination_port),
            backend: SocketAddr::new(backend, reply.source_port),
        },
        name,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flow_is_read_and_named_by_its_first_direction() {
        let proto = |source: [u8; 2], destination: [u8; 2]| {
            let parts = [attribute(1, &[17]), attribute(2, &source), attribute(3, &destination)];
            nested(CTA_TUPLE_PROTO, &parts)
        };
        let addresses =
            |from: [u8; 4], to: [u8; 4]| nested(CTA_TUPLE_IP, &[attribute(1, &from), attribute(2, &to)]);
        let (client, node, pod) = ([192, 0, 2, 2], [192, 0, 2, 1], [10, 1, 0, 2]);
        let original = nested(CTA_TUPLE_ORIG, &[addresses(client, node), proto([4, 0], [0, 53])]);
        let reply = nested(CTA_TUPLE_REPLY, &[addresses(pod, client), proto([20, 233], [4, 0])]);
        let (id, status) = (attribute(CTA_ID, &[1, 2, 3, 4]), attribute(3, &[0, 0, 1, 0x8e]));
        let message = [original.clone(), reply, status, id.clone()].concat();
        let entry = parse(2, &message).unwrap().unwrap();
        let expected = Tracked {
            protocol: UDP,
            destination: "192.0.2.1:53".parse().unwrap(),
            backend: "10.1.0.2:5353".parse().unwrap(),
        };
        assert_eq!((entry.tracked, entry.family), (expected, 2));
        assert_eq!(entry.name, [original, id].concat());
        assert!(parse(2, &[]).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(2, &payload);
        }
    }
}
