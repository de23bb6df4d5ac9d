//! What a feed tells: the loop of changes, the log of failures.

use std::net::IpAddr;

use sluice_model::Object;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Feed, State};
use crate::{
    api::{error::FeedError, hub::Report, kind::Kind, servers::Server},
    failure::Chain,
    source::Delta,
};

impl Feed {
    /// The API has no such kind, or keeps it from us: what is known stays, and the rest need not wait for it.
    pub(super) fn go_without(&self, error: &FeedError, without: &str, state: &mut State) -> bool {
        if !std::mem::replace(&mut state.without, true) {
            if error.is_refusal() {
                warn!(kind = %self.kind, "going without: {without}");
            } else if self.kind.is_custom() {
                // Somebody has asked for it.
                let group = self.kind.group();
                warn!(kind = %self.kind, group, "the API does not have this kind (yet); going without: {without}");
            } else {
                info!(kind = %self.kind, %error, "going without: {without}");
            }
        }
        // Nothing is wrong with what the node has chosen to do without.
        state.failing = false;
        self.contacts.absent(self.kind);
        self.hub
            .report(self.kind, Report { complete: true, faults: state.known.faults(), ..Report::default() })
    }

    /// Tells a failure when it begins.
    pub(super) fn tell(&self, error: &FeedError, server: Option<&Server>, state: &mut State) {
        self.contacts.failed(self.kind, error.reason());
        let server = server.map_or("none", |server| &*server.address);
        let text = Chain(error).to_string();
        if error.needs_list() {
            info!(kind = %self.kind, server, error = text, "listing anew");
        } else if !std::mem::replace(&mut state.failing, true) {
            if error.is_refusal() {
                let (kind, group) = (self.kind, self.kind.group());
                error!(
                    server,
                    error = text,
                    "the right to list and watch {kind} of API group \"{group}\" in all namespaces is missing \
                     (ClusterRole in deploy/rbac.yaml); what is known stays in force"
                );
                return;
            }
            warn!(kind = %self.kind, server, error = text, "cannot watch; what is known stays in force");
        } else {
            debug!(kind = %self.kind, server, error = text, "still cannot watch");
        }
    }

    /// The server said something.
    pub(super) fn heard(&self, state: &mut State) {
        state.heard = Instant::now();
        self.contacts.heard(self.kind);
        state.refused = None;
        let without = std::mem::take(&mut state.without);
        if std::mem::take(&mut state.failing) || without {
            info!(kind = %self.kind, "watching again");
        }
    }

    /// Passes on what has changed. False if nobody listens any more.
    pub(super) fn pass_on(
        &self,
        server: &Server,
        state: &mut State,
        deltas: Vec<Delta>,
        complete: bool,
    ) -> bool {
        for fault in state.known.take_untold() {
            error!("{fault}; the object is left out, or stays as it was");
        }
        if !state.told_own_service && self.kind == Kind::Service && leads_through(server, &deltas) {
            state.told_own_service = true;
            warn!(
                server = %server.address,
                "the API server is reached at a service's address, which this agent itself serves: set apiServers"
            );
        }
        self.hub.report(self.kind, Report { deltas, faults: state.known.faults(), complete })
    }
}

/// Whether the server's address is one of a service.
fn leads_through(server: &Server, deltas: &[Delta]) -> bool {
    let rest = server.address.split_once("://").map_or(&*server.address, |(_, rest)| rest);
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => rest.split([':', '/']).next(),
    };
    let Some(host) = host.and_then(|host| host.parse::<IpAddr>().ok()) else { return false };
    deltas.iter().any(|delta| match delta {
        Delta::Put(Object::Service(service)) => service.cluster_ips.contains(&host),
        _ => false,
    })
}
