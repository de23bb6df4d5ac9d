//! Limits on some of what leaves by a link: on what comes from (or goes to) certain networks, or on all but that.
//!
//! ```text
//! qdisc htb 1: root                   what no filter and no default sends to the class leaves at once, past its queue
//!     class htb 1:1                   the limit, and the default where all but certain networks are limited
//!         qdisc tbf 2:                the class's queue
//!     filter u32 .. flowid 1:1        one a network that is limited, or, with flowid 1:0, one that is not
//! ```
//!
//! The class holds the rate; the `tbf` below it has one that no packet ever waits for. It is the only queue that both counts
//! in bytes and cuts what the kernel has batched (GSO) into frames: a batch of 64 KB has no room in a slow class's queue.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage, TcOption},
};

use crate::{
    Netlink, Result, Shape, Shaped,
    attributes::{self, Malformed},
    shape::{self, KIND as TBF, ROOT, Root, TCA_KIND, TCA_OPTIONS, specification},
    socket::Action,
};

const HTB: &str = "htb";
const U32: &str = "u32";
const TCA_HTB_PARAMETERS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_DIRECT_LENGTH: u16 = 5;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SELECTOR: u16 = 5;
/// What matches needs no further look.
const U32_TERMINAL: u8 = 1;
/// `version` of `tc_htb_glob`, which the kernel compares with its own, and `rate2quantum`, for which nobody asks here.
const HTB_VERSION: u32 = 3;
const HTB_RATE_TO_QUANTUM: u32 = 10;
/// What a class may send before it is another's turn. There is only one.
const QUANTUM: u32 = 65_536;
/// Packets that may wait to leave unlimited. A veth device takes them as they come.
const DIRECT_LENGTH: u32 = 1000;
/// Nanoseconds in the kernel's unit for bursts.
const TICK: u64 = 64;
/// Bytes a second for which a frame takes no nanosecond.
const ENDLESS: u64 = 1 << 56;

/// The queueing discipline, its class, and the queue of that.
const HANDLE: u32 = 1 << 16;
const CLASS: u32 = HANDLE | 1;
const QUEUE: u32 = 2 << 16;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// Which end of a packet's way an address is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Some of the packets that leave by a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Which of a packet's addresses is looked at.
    pub end: End,
    /// The networks, of either family.
    pub networks: BTreeSet<IpNet>,
    /// Whether it is packets of these networks, or all but these.
    pub inside: bool,
}

impl End {
    /// Where the address stands in the header.
    const fn offset(self, v4: bool) -> u32 {
        match (self, v4) {
            (Self::Source, true) => 12,
            (Self::Destination, true) => 16,
            (Self::Source, false) => 8,
            (Self::Destination, false) => 24,
        }
    }
}

/// A network in a filter's terms: for every four bytes of the address, the mask, the value, and where they stand.
fn selector(end: End, network: IpNet) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (mask, value) = (octets(network.netmask()), octets(network.network()));
    let words = mask.chunks(4).zip(value.chunks(4));
    let mut bytes = vec![0; 16];
    (bytes[0], bytes[2]) = (U32_TERMINAL, (mask.len() / 4) as u8);
    for (offset, (mask, value)) in (end.offset(value.len() == 4)..).step_by(4).zip(words) {
        bytes.extend([mask, value, &offset.to_ne_bytes(), &[0; 4]].concat());
    }
    bytes
}

/// The network of a filter; `None` if it is not of our making.
fn network(selector: &[u8]) -> Option<(End, IpNet)> {
    let (header, keys) = selector.split_at_checked(16)?;
    let (keys, rest) = keys.as_chunks::<16>();
    if !rest.is_empty() || header[0] != U32_TERMINAL || usize::from(header[2]) != keys.len() {
        return None;
    }
    let part = |from: usize| keys.iter().flat_map(|key| key[from..from + 4].to_vec()).collect::<Vec<u8>>();
    let address = |bytes: Vec<u8>| attributes::address(&bytes).ok();
    let first = u32::from_ne_bytes(keys.first()?[8..12].try_into().ok()?);
    let end = [End::Source, End::Destination].into_iter().find(|end| end.offset(keys.len() == 1) == first)?;
    let found = IpNet::with_netmask(address(part(4))?, address(part(0))?).ok()?;
    (self::selector(end, found) == selector).then_some((end, found))
}

fn option(kind: u16, value: &[u8]) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value.to_vec()))
}

fn message(index: u32, handle: u32, parent: u32, kind: &str, options: Vec<TcOption>) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle.into();
    message.header.parent = parent.into();
    message.attributes = vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Options(options)];
    message
}

/// The parameters of the class.
fn class(shape: &Shape) -> Vec<TcOption> {
    let rate = specification(shape.rate);
    let ticks = u64::from(shape.burst) * 1_000_000_000 / shape.rate.max(1) / TICK;
    let burst = u32::try_from(ticks).unwrap_or(u32::MAX).to_ne_bytes();
    // Rate and ceiling, the burst of both, and how much at a turn; level and priority as they are.
    let parameters = [&rate[..], &rate, &burst, &burst, &QUANTUM.to_ne_bytes(), &[0; 8]].concat();
    let mut options = vec![option(TCA_HTB_PARAMETERS, &parameters)];
    if shape.rate > u64::from(u32::MAX) {
        options.push(option(TCA_HTB_RATE64, &shape.rate.to_ne_bytes()));
        options.push(option(TCA_HTB_CEIL64, &shape.rate.to_ne_bytes()));
    }
    options
}

/// The requests that set a limit, in their order: packets go to the class when there is one.
fn requests(index: u32, shape: &Shape, some: &Selection) -> Vec<RouteNetlinkMessage> {
    let default = if some.inside { 0 } else { CLASS & 0xffff };
    let init = [HTB_VERSION, HTB_RATE_TO_QUANTUM, default, 0, 0].map(u32::to_ne_bytes).concat();
    let root = vec![option(TCA_HTB_INIT, &init), option(TCA_HTB_DIRECT_LENGTH, &DIRECT_LENGTH.to_ne_bytes())];
    let queue = Shape { rate: ENDLESS, ..*shape };
    let mut requests = vec![
        RouteNetlinkMessage::NewQueueDiscipline(message(index, HANDLE, ROOT, HTB, root)),
        RouteNetlinkMessage::NewTrafficClass(message(index, CLASS, HANDLE, HTB, class(shape))),
        RouteNetlinkMessage::NewQueueDiscipline(message(index, QUEUE, CLASS, TBF, queue.options())),
    ];
    let flow = if some.inside { CLASS } else { HANDLE };
    for network in &some.networks {
        // Of one priority the filters must be of one protocol.
        let (priority, protocol) = if network.addr().is_ipv4() { (1, ETH_P_IP) } else { (2, ETH_P_IPV6) };
        let options = vec![
            option(TCA_U32_CLASSID, &flow.to_ne_bytes()),
            option(TCA_U32_SELECTOR, &selector(some.end, *network)),
        ];
        let mut filter = message(index, 0, HANDLE, U32, options);
        filter.header.info = priority << 16 | u32::from(protocol.to_be());
        requests.push(RouteNetlinkMessage::NewTrafficFilter(filter));
    }
    requests
}

/// A link and the place of a request, for errors.
struct Step<'a>(u32, Option<&'a IpNet>);

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Root(self.0).fmt(f)?;
        self.1.map_or(Ok(()), |network| write!(f, " for {network}"))
    }
}

impl Netlink {
    /// Limits some of what leaves by a link, which must have no queueing discipline yet. It goes with the link.
    pub fn shape_some(&mut self, index: u32, shape: &Shape, some: &Selection) -> Result<()> {
        let requests = requests(index, shape, some);
        let steps: Vec<_> = std::iter::repeat_n(None, 3).chain(some.networks.iter().map(Some)).collect();
        let steps: Vec<_> = steps.into_iter().map(|network| Step(index, network)).collect();
        let messages = requests.into_iter().map(|message| (message, NLM_F_CREATE | NLM_F_EXCL)).collect();
        let failed = self.execute_all(messages, |at| Action { verb: "limit the rate", object: &steps[at] });
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// What [`Self::shape_some`] has set on a link; `None` if there is no such limit.
    pub fn shaped_some(&mut self, index: u32) -> Result<Option<(Shaped, Selection)>> {
        let action = Action { verb: "look up the rate", object: &Root(index) };
        let whole = |index: u32| TcMessage::with_index(index.cast_signed());
        let list = RouteNetlinkMessage::GetQueueDiscipline(whole(index));
        let found = self.dump(&list, action, |_, payload| {
            let root = root(index, payload)?.map(|default| (Some(default), None));
            let queue = shape::parse(index, CLASS, payload)?.map(|queue| (None, Some(queue.limit)));
            Ok(root.or(queue))
        })?;
        let Some(default) = found.iter().find_map(|found| found.0) else { return Ok(None) };
        let Some(limit) = found.iter().find_map(|found| found.1) else { return Ok(None) };
        let list = RouteNetlinkMessage::GetTrafficClass(whole(index));
        let rates = self.dump(&list, action, |_, payload| rate(index, payload))?;
        let Some(rate) = rates.into_iter().next() else { return Ok(None) };
        let mut list = whole(index);
        list.header.parent = HANDLE.into();
        let list = RouteNetlinkMessage::GetTrafficFilter(list);
        let filters = self.dump(&list, action, |_, payload| filter(index, payload))?;
        let inside = default != CLASS & 0xffff;
        let flow = if inside { CLASS } else { HANDLE };
        let Some((_, end, _)) = filters.first().copied() else { return Ok(None) };
        if filters.iter().any(|filter| (filter.0, filter.1) != (flow, end)) {
            return Ok(None);
        }
        let networks = filters.into_iter().map(|(_, _, network)| network).collect();
        Ok(Some((Shaped { rate, limit }, Selection { end, networks, inside })))
    }
}

/// The attributes of a kind's options, where a message is about this link and this parent.
fn options(
    (index, parent, kind): (u32, u32, &str),
    payload: &[u8],
    mut each: impl FnMut(u16, &[u8]) -> Result<(), Malformed>,
) -> Result<bool, Malformed> {
    let (header, rest) = attributes::split_header(payload, 20)?;
    if attributes::u32(&header[4..8])? != index || attributes::u32(&header[12..16])? != parent {
        return Ok(false);
    }
    let mut found = false;
    attributes::for_each(rest, |attribute, value| match attribute {
        TCA_KIND => {
            found = attributes::text(value) == kind;
            Ok(())
        }
        TCA_OPTIONS if found => attributes::for_each(value, &mut each),
        _ => Ok(()),
    })?;
    Ok(found)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let cut = || Malformed("a structure is cut short".to_owned());
    attributes::u32(bytes.get(at..at + 4).ok_or_else(cut)?)
}

/// The default class of our queueing discipline.
fn root(index: u32, payload: &[u8]) -> Result<Option<u32>, Malformed> {
    let mut default = 0;
    let found = options((index, ROOT, HTB), payload, |option, value| {
        if option == TCA_HTB_INIT {
            default = word(value, 8)?;
        }
        Ok(())
    })?;
    Ok(found.then_some(default))
}

/// The rate of a class below our queueing discipline.
fn rate(index: u32, payload: &[u8]) -> Result<Option<u64>, Malformed> {
    let mut rate = 0;
    // A class at the top says the root itself for its parent.
    let found = options((index, ROOT, HTB), payload, |option, value| {
        match option {
            TCA_HTB_PARAMETERS => rate = rate.max(u64::from(word(value, 8)?)),
            TCA_HTB_RATE64 => rate = attributes::u64(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(found.then_some(rate))
}

/// Where a filter of ours leads, and what it looks at.
fn filter(index: u32, payload: &[u8]) -> Result<Option<(u32, End, IpNet)>, Malformed> {
    let (mut flow, mut of) = (0, None);
    options((index, HANDLE, U32), payload, |option, value| {
        match option {
            TCA_U32_CLASSID => flow = attributes::u32(value)?,
            TCA_U32_SELECTOR => of = network(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok(of.map(|(end, network)| (flow, end, network)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Namespace, VethEnd};

    #[test]
    fn a_limit_on_some_is_set_and_read() {
        Namespace::create()
            .unwrap()
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                let limits = [
                    (Shape::new(125_000, 10_000, 25, 1500), End::Source, true),
                    (Shape::new(12_500_000_000, u32::MAX, 25, 1500), End::Destination, false),
                ];
                for (number, (shape, end, inside)) in limits.into_iter().enumerate() {
                    let names = [format!("a{number}"), format!("b{number}")];
                    let [one, two] = names.each_ref().map(|name| VethEnd::new(name).queues(1).up());
                    let index = netlink.create_veth(&one, &two).unwrap().index;
                    assert_eq!(netlink.shaped_some(index).unwrap(), None);
                    let networks = ["0.0.0.0/1", "10.1.2.3/32", "10.2.0.0/15", "fd00::/8", "::/0"];
                    let networks = networks.map(|text| text.parse().unwrap()).into();
                    let some = Selection { end, networks, inside };
                    netlink.shape_some(index, &shape, &some).unwrap();
                    let expected = Shaped { rate: shape.rate, limit: shape.limit };
                    assert_eq!(netlink.shaped_some(index).unwrap(), Some((expected, some)));
                    assert_eq!(netlink.shaped(index).unwrap(), None, "not all of it");
                }
                let index = netlink.create_veth(&VethEnd::new("c"), &VethEnd::new("d")).unwrap().index;
                netlink.shape(index, &Shape::new(125_000, 10_000, 25, 1500)).unwrap();
                assert_eq!(netlink.shaped_some(index).unwrap(), None, "all of it");
            })
            .unwrap();
    }

    #[test]
    fn a_network_comes_back_out_of_its_selector() {
        for end in [End::Source, End::Destination] {
            for text in ["0.0.0.0/0", "192.0.2.0/25", "::/0", "2001:db8:1:2:3::/80", "::1/128"] {
                let net: IpNet = text.parse().unwrap();
                assert_eq!(network(&selector(end, net)), Some((end, net)), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = (root(1, &payload), rate(1, &payload), filter(1, &payload), network(&payload));
        }
    }
}
