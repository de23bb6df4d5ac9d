//! Limits on what leaves by a link: the queueing discipline `tbf`, a bucket of tokens that fills at a rate.

use std::fmt;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use crate::{
    Netlink, Result,
    attributes::{self, Malformed},
    socket::Action,
};

pub(crate) const KIND: &str = "tbf";
pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const LINKLAYER_ETHERNET: u8 = 1;
/// `TC_H_ROOT`.
pub(crate) const ROOT: u32 = u32::MAX;
/// What a frame has before the packet.
const FRAME_HEADER: u32 = 14;

/// A limit on what leaves by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may leave at once after a rest.
    pub burst: u32,
    /// Bytes that wait for their turn, at most; what comes beyond is dropped.
    pub limit: u32,
}

/// What is set on a link, as far as the kernel tells it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// Bytes a second.
    pub rate: u64,
    /// As [`Shape::limit`].
    pub limit: u32,
}

impl Shape {
    /// A limit whose queue takes `latency` milliseconds to empty, for packets of at most `mtu` bytes. A burst that no
    /// packet fits in would let nothing through: it is taken for one packet.
    pub fn new(rate: u64, burst: u32, latency: u32, mtu: u32) -> Self {
        let burst = burst.max(mtu.saturating_add(FRAME_HEADER));
        let queue = u64::from(burst).saturating_add(rate.saturating_mul(u64::from(latency)) / 1000);
        Self { rate, burst, limit: u32::try_from(queue).unwrap_or(u32::MAX) }
    }

    pub(crate) fn options(&self) -> Vec<TcOption> {
        let specification = specification(self.rate).to_vec();
        // Rate, no peak rate, limit; burst and packet size in ticks, which the attribute for the burst stands for.
        let parameters = [specification, vec![0; 12], self.limit.to_ne_bytes().to_vec(), vec![0; 8]].concat();
        let other = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
        let mut options = vec![other(TCA_TBF_PARMS, parameters)];
        if self.rate > u64::from(u32::MAX) {
            options.push(other(TCA_TBF_RATE64, self.rate.to_ne_bytes().to_vec()));
        }
        options.push(other(TCA_TBF_BURST, self.burst.to_ne_bytes().to_vec()));
        options
    }
}

/// The kernel's form of a rate (`tc_ratespec`). One beyond 32 bits stands in an attribute of its own. With a link layer that
/// is named, the kernel reckons by itself and wants no table.
pub(crate) fn specification(rate: u64) -> [u8; 12] {
    let [a, b, c, d] = u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes();
    [0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

pub(crate) struct Root(pub(crate) u32);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of the link with index {}", self.0)
    }
}

impl Netlink {
    /// Limits what leaves by a link, in place of whatever queueing discipline it has. It goes with the link.
    pub fn shape(&mut self, index: u32, shape: &Shape) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.header.parent = TcHandle::from(ROOT);
        message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(shape.options())];
        let action = Action { verb: "limit the rate", object: &Root(index) };
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.execute(message, NLM_F_CREATE | NLM_F_REPLACE, action)
    }

    /// How much may leave by a link; `None` if that is not limited.
    pub fn shaped(&mut self, index: u32) -> Result<Option<Shaped>> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        let action = Action { verb: "look up the rate", object: &Root(index) };
        let message = RouteNetlinkMessage::GetQueueDiscipline(message);
        // Of all links, whatever was asked for.
        let found = self.dump(&message, action, |_, payload| parse(index, ROOT, payload))?;
        Ok(found.into_iter().next())
    }
}

/// A limit that is set at a link, below this parent.
pub(crate) fn parse(index: u32, parent: u32, payload: &[u8]) -> Result<Option<Shaped>, Malformed> {
    let (header, rest) = attributes::split_header(payload, 20)?;
    if attributes::u32(&header[4..8])? != index || attributes::u32(&header[12..16])? != parent {
        return Ok(None);
    }
    let (mut kind, mut rate, mut limit) = (String::new(), 0, 0);
    attributes::for_each(rest, |attribute, value| match attribute {
        TCA_KIND => {
            kind = attributes::text(value);
            Ok(())
        }
        TCA_OPTIONS if kind == KIND => attributes::for_each(value, |option, value| {
            match option {
                TCA_TBF_PARMS => {
                    let (parameters, _) = attributes::split_header(value, 28)?;
                    rate = rate.max(u64::from(attributes::u32(&parameters[8..12])?));
                    limit = attributes::u32(&parameters[24..28])?;
                }
                TCA_TBF_RATE64 => rate = attributes::u64(value)?,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok((kind == KIND).then_some(Shaped { rate, limit }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Namespace, VethEnd};

    #[test]
    fn a_limit_is_set_changed_and_gone_with_its_link() {
        Namespace::create()
            .unwrap()
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.create_veth(&VethEnd::new("a").up(), &VethEnd::new("b").up()).unwrap();
                let index = netlink.link("a").unwrap().index;
                assert_eq!(netlink.shaped(index).unwrap(), None);
                for shape in [Shape::new(125_000, 10_000, 25, 1500), Shape::new(12_500_000_000, 1, 25, 1500)]
                {
                    netlink.shape(index, &shape).unwrap();
                    let expected = Shaped { rate: shape.rate, limit: shape.limit };
                    assert_eq!(netlink.shaped(index).unwrap(), Some(expected));
                }
                let other = netlink.link("b").unwrap().index;
                assert_eq!(netlink.shaped(other).unwrap(), None, "only the one");
            })
            .unwrap();
    }

    #[test]
    fn a_burst_has_room_for_a_packet_and_the_queue_for_the_latency() {
        let expected = Shape { rate: 1_000_000, burst: 1514, limit: 26_514 };
        assert_eq!(Shape::new(1_000_000, 1, 25, 1500), expected);
        assert_eq!(Shape::new(u64::MAX, u32::MAX, 25, 1500).limit, u32::MAX);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(1, ROOT, &payload);
        }
    }
}
