//! Collects connections that are over. The datapath makes their entries and never looks back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sluice_ebpf_common::{
    FLOW_ANSWERED, FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP,
    PROTO_TCP, PROTO_UDP, map_name,
};
use sluice_model::IpFamily;

use crate::{DatapathError, Pins, batch::BatchReader, tables::Table};

/// How long connections are remembered without a packet, where that can be set (row 43 of the behaviour table). In whole
/// seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// TCP, open; as nf_conntrack_tcp_timeout_established, which kube-proxy sets to a day.
    pub tcp_established: Duration,
    /// TCP that one side has closed; as nf_conntrack_tcp_timeout_close_wait, which kube-proxy sets to an hour.
    pub tcp_half_closed: Duration,
    /// Datagrams and echoes that nobody has answered; as nf_conntrack_udp_timeout.
    pub udp: Duration,
    /// Datagrams and echoes; as nf_conntrack_udp_timeout_stream.
    pub udp_stream: Duration,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_established: seconds(24 * 3600),
            tcp_half_closed: seconds(3600),
            udp: seconds(30),
            udp_stream: seconds(120),
        }
    }
}

impl FlowTimeouts {
    /// The shortest of all.
    fn shortest(&self) -> u32 {
        let set = [self.tcp_established, self.tcp_half_closed, self.udp, self.udp_stream].map(seconds);
        set.into_iter().fold(TCP_CLOSED, u32::min)
    }
}

/// Seconds without a packet after which a TCP connection is forgotten that both sides have closed, or one has reset.
const TCP_CLOSED: u32 = 60;
/// The same for an SCTP association, whose ends send heartbeats every 30 seconds; as
/// nf_conntrack_sctp_timeout_established.
const SCTP: u32 = 210;
/// The same for a connection of either that nobody has answered; as nf_conntrack_tcp_timeout_syn_sent.
const UNANSWERED: u32 = 120;

/// How long one call may take; the rest of a round waits for the next.
const SLICE: Duration = Duration::from_millis(10);

/// What a round over the whole table has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCensus {
    /// Entries that are left.
    pub entries: usize,
    /// Connections among them, by protocol.
    pub connections: BTreeMap<&'static str, usize>,
    /// Entries that were removed, by family.
    pub removed: BTreeMap<IpFamily, usize>,
    /// The time that the round took, without what was between its parts.
    pub work: Duration,
}

/// Removes expired connections, a part of the table at a time.
pub(crate) struct FlowCollector {
    flows: Table<FlowKey, Flow>,
    reader: BatchReader<FlowKey, Flow>,
    timeouts: FlowTimeouts,
    /// The round under way.
    round: FlowCensus,
    /// Entries when the last round ended.
    entries: usize,
}

impl FlowCollector {
    pub(crate) fn open(pins: &Pins, timeouts: FlowTimeouts) -> Result<Self, DatapathError> {
        let flows = Table::open(pins, map_name::FLOWS)?;
        let reader = BatchReader::open(pins, map_name::FLOWS)?;
        Ok(Self { flows, reader, timeouts, round: FlowCensus::default(), entries: 0 })
    }

    /// Entries in the table when it was last walked.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Looks at the next part of the table; tells when it has seen the whole.
    pub(crate) fn collect(&mut self, now: u32) -> Result<Option<FlowCensus>, DatapathError> {
        let start = Instant::now();
        let mut end = false;
        while !end && start.elapsed() < SLICE {
            let part;
            (part, end) = self.reader.read()?;
            for (key, flow) in part {
                self.look_at(&key, &flow, now)?;
            }
        }
        self.round.work += start.elapsed();
        if !end {
            return Ok(None);
        }
        self.entries = self.round.entries;
        Ok(Some(std::mem::take(&mut self.round)))
    }

    fn look_at(&mut self, key: &FlowKey, flow: &Flow, now: u32) -> Result<(), DatapathError> {
        // Nothing is over before the shortest of the times: no need to look for the other direction.
        if now.saturating_sub(flow.seen) > self.timeouts.shortest() {
            let other_key = flow.tuple(key.proto).inverse();
            let other = self.flows.get(&other_key)?;
            if expired(key, flow, other.as_ref(), now, &self.timeouts) {
                self.flows.remove(key)?;
                self.flows.remove(&other_key)?;
                let family = if key.src.is_v4() { IpFamily::V4 } else { IpFamily::V6 };
                *self.round.removed.entry(family).or_default() += 1 + usize::from(other.is_some());
                return Ok(());
            }
        }
        self.round.entries += 1;
        if flow.flags & FLOW_REPLY == 0 {
            *self.round.connections.entry(protocol(key.proto)).or_default() += 1;
        }
        Ok(())
    }
}

/// A protocol's name, as the label of a metric.
fn protocol(number: u32) -> &'static str {
    match u8::try_from(number) {
        Ok(PROTO_TCP) => "tcp",
        Ok(PROTO_UDP) => "udp",
        Ok(PROTO_SCTP) => "sctp",
        Ok(PROTO_ICMP | PROTO_ICMPV6) => "icmp",
        _ => "other",
    }
}

/// Whether a connection is over. Both directions count: a download keeps its requests' direction alive.
fn expired(key: &FlowKey, flow: &Flow, other: Option<&Flow>, now: u32, timeouts: &FlowTimeouts) -> bool {
    let age =
        [Some(flow), other].into_iter().flatten().map(|f| now.saturating_sub(f.seen)).min().unwrap_or(0);
    let flags = flow.flags | other.map_or(0, |other| other.flags);
    let both = flow.flags & other.map_or(flow.flags, |other| other.flags);
    let answered = flags & FLOW_ANSWERED != 0;
    let limit = if !matches!(key.proto as u8, PROTO_TCP | PROTO_SCTP) {
        seconds(if answered { timeouts.udp_stream } else { timeouts.udp })
    } else if flags & FLOW_RST != 0 || both & FLOW_FIN != 0 {
        TCP_CLOSED
    } else if flags & FLOW_FIN != 0 {
        seconds(timeouts.tcp_half_closed)
    } else if !answered {
        UNANSWERED
    } else if key.proto == u32::from(PROTO_SCTP) {
        SCTP
    } else {
        seconds(timeouts.tcp_established)
    };
    age > limit
}

/// Whole seconds, as the datapath's clock has them.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_time() {
        let tcp = FlowKey { proto: u32::from(PROTO_TCP), ..FlowKey::default() };
        let sctp = FlowKey { proto: u32::from(PROTO_SCTP), ..FlowKey::default() };
        let udp = FlowKey { proto: 17, ..FlowKey::default() };
        let flow = |flags, seen| Flow { flags, seen, ..Flow::default() };
        let now = 100_000;
        let cases = [
            ("a datagram's", udp, flow(0, now - 121), Some(flow(FLOW_ANSWERED, now - 500)), true),
            (
                "a datagram's a minute ago",
                udp,
                flow(0, now - 60),
                Some(flow(FLOW_ANSWERED, now - 500)),
                false,
            ),
            ("a datagram's that nobody answered", udp, flow(0, now - 31), Some(flow(0, now - 500)), true),
            (
                "a datagram's that was just answered",
                udp,
                flow(0, now - 500),
                Some(flow(FLOW_ANSWERED, now - 20)),
                false,
            ),
            (
                "an established one",
                tcp,
                flow(0, now - 80_000),
                Some(flow(FLOW_ANSWERED, now - 80_000)),
                false,
            ),
            (
                "an established one after a day",
                tcp,
                flow(0, now - 86_401),
                Some(flow(FLOW_ANSWERED, 0)),
                true,
            ),
            ("one that nobody answered", tcp, flow(0, now - 121), Some(flow(0, now - 121)), true),
            ("half closed", tcp, flow(FLOW_FIN, now - 3_000), Some(flow(0, now - 3_000)), false),
            ("half closed for an hour", tcp, flow(FLOW_FIN, now - 3_601), Some(flow(0, now - 3_601)), true),
            ("closed", tcp, flow(FLOW_FIN, now - 61), Some(flow(FLOW_FIN, now - 61)), true),
            ("reset", tcp, flow(0, now - 61), Some(flow(FLOW_RST, now - 61)), true),
            ("an association's", sctp, flow(0, now - 211), Some(flow(FLOW_ANSWERED, now - 500)), true),
            (
                "an association's with heartbeats",
                sctp,
                flow(0, now - 200),
                Some(flow(FLOW_ANSWERED, now - 500)),
                false,
            ),
            ("an aborted association's", sctp, flow(FLOW_RST, now - 61), None, true),
            ("just written", tcp, flow(FLOW_RST, now + 1), None, false),
        ];
        for (what, key, flow, other, over) in cases {
            assert_eq!(expired(&key, &flow, other.as_ref(), now, &FlowTimeouts::default()), over, "{what}");
        }
    }
    #[test]
    fn times_that_are_set_are_kept() {
        let timeouts = FlowTimeouts {
            tcp_established: Duration::from_secs(10),
            udp: Duration::from_secs(500),
            ..FlowTimeouts::default()
        };
        assert_eq!((timeouts.shortest(), FlowTimeouts::default().shortest()), (10, 30));
        let key = |proto| FlowKey { proto, ..FlowKey::default() };
        let flow = |flags, seen| Flow { flags, seen, ..Flow::default() };
        let over =
            |proto, flags, age: u32| expired(&key(proto), &flow(flags, 1_000 - age), None, 1_000, &timeouts);
        assert!(over(6, FLOW_ANSWERED, 11) && !over(6, FLOW_ANSWERED, 10));
        assert!(over(17, 0, 501) && !over(17, 0, 400));
    }
}
