//! Collects connections that are over. The datapath makes their entries and never looks back.

use sluice_ebpf_common::{FLOW_FIN, FLOW_RST, Flow, FlowKey, PROTO_TCP, map_name};

use crate::{DatapathError, Pins, tables::Table};

/// Seconds without a packet after which an established TCP connection is forgotten: a day, as
/// nf_conntrack_tcp_timeout_established is set by kube-proxy (row 43 of the behaviour table).
const TCP_ESTABLISHED: u32 = 24 * 3600;
/// The same for a connection that one side has closed: an hour, as for nf_conntrack_tcp_timeout_close_wait.
const TCP_HALF_CLOSED: u32 = 3600;
/// The same for a connection that both sides have closed, or one has reset.
const TCP_CLOSED: u32 = 60;
/// The same for datagrams and echoes.
const DATAGRAM: u32 = 120;

/// How many entries one call looks at.
const BATCH: usize = 16_384;

/// Removes expired connections, a part of the table at a time.
pub(crate) struct FlowCollector {
    flows: Table<FlowKey, Flow>,
    /// The keys still to be looked at in this round.
    pending: Vec<FlowKey>,
    /// How many entries there were when the round began.
    entries: usize,
}

impl FlowCollector {
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self { flows: Table::open(pins, map_name::FLOWS)?, pending: Vec::new(), entries: 0 })
    }

    /// Entries in the table when it was last walked.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Looks at the next part of the table; returns how many entries went.
    pub(crate) fn collect(&mut self, now: u32) -> Result<usize, DatapathError> {
        if self.pending.is_empty() {
            self.pending = self.flows.keys().collect::<Result<_, _>>()?;
            self.entries = self.pending.len();
        }
        let batch = self.pending.split_off(self.pending.len().saturating_sub(BATCH));
        let mut removed = 0;
        for key in batch {
            let Some(flow) = self.flows.get(&key)? else { continue };
            let other_key = flow.tuple(key.proto).inverse();
            let other = self.flows.get(&other_key)?;
            if expired(&key, &flow, other.as_ref(), now) {
                self.flows.remove(&key)?;
                self.flows.remove(&other_key)?;
                removed += 1 + usize::from(other.is_some());
            }
        }
        Ok(removed)
    }
}

/// Whether a connection is over. Both directions count: a download keeps its requests' direction alive.
fn expired(key: &FlowKey, flow: &Flow, other: Option<&Flow>, now: u32) -> bool {
    let age =
        [Some(flow), other].into_iter().flatten().map(|f| now.saturating_sub(f.seen)).min().unwrap_or(0);
    let flags = flow.flags | other.map_or(0, |other| other.flags);
    let both = flow.flags & other.map_or(flow.flags, |other| other.flags);
    let limit = if key.proto != u32::from(PROTO_TCP) {
        DATAGRAM
    } else if flags & FLOW_RST != 0 || both & FLOW_FIN != 0 {
        TCP_CLOSED
    } else if flags & FLOW_FIN != 0 {
        TCP_HALF_CLOSED
    } else {
        TCP_ESTABLISHED
    };
    age > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_time() {
        let tcp = FlowKey { proto: u32::from(PROTO_TCP), ..FlowKey::default() };
        let udp = FlowKey { proto: 17, ..FlowKey::default() };
        let flow = |flags, seen| Flow { flags, seen, ..Flow::default() };
        let now = 100_000;
        let cases = [
            ("a datagram's", udp, flow(0, now - 121), Some(flow(0, now - 500)), true),
            ("a datagram's that was answered", udp, flow(0, now - 500), Some(flow(0, now - 20)), false),
            ("an established one", tcp, flow(0, now - 80_000), None, false),
            ("an established one after a day", tcp, flow(0, now - 86_401), None, true),
            ("half closed", tcp, flow(FLOW_FIN, now - 3_000), Some(flow(0, now - 3_000)), false),
            ("half closed for an hour", tcp, flow(FLOW_FIN, now - 3_601), Some(flow(0, now - 3_601)), true),
            ("closed", tcp, flow(FLOW_FIN, now - 61), Some(flow(FLOW_FIN, now - 61)), true),
            ("reset", tcp, flow(0, now - 61), Some(flow(FLOW_RST, now - 61)), true),
            ("just written", tcp, flow(FLOW_RST, now + 1), None, false),
        ];
        for (what, key, flow, other, over) in cases {
            assert_eq!(expired(&key, &flow, other.as_ref(), now), over, "{what}");
        }
    }
}
