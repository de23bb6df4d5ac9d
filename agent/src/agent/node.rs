//! The steps of a pass that are about the node itself: devices, addresses and settings, routes, and what the plugin and
//! the container runtime are told.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use sluice_cni::{node::NodeConfig, store::Attachment};
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::Snapshot;
use sluice_netlink::{MacAddress, owned};
use tracing::{debug, info, warn};

use super::Agent;
use crate::{
    config::{Config, PodNetwork},
    conflist,
    failure::Failure,
    foreign,
    node::{self, Facts, Found},
    routes,
};

/// So many operations of a pass are told one by one; of more, in a large cluster, their number. `debug` tells all.
const TOLD: usize = 20;

impl Agent {
    /// Whether the node is as it was left: what the kernel tells is often what this agent has just done itself.
    pub(super) fn is_as_left(&mut self) -> bool {
        match (&self.node, node::observe(&mut self.netlink)) {
            (Some((known, _)), Ok(found)) => *known == found,
            _ => false,
        }
    }

    /// Step 1, and the facts that the others need. With `look`, what is on the node is read; otherwise nobody but this
    /// agent has changed it since.
    pub(super) fn set_up_node(&mut self, look: bool, failures: &mut Vec<Failure>) -> Result<(), Failure> {
        let found = match self.node.take() {
            Some((found, _)) if !look => found,
            before => {
                self.node = before;
                node::observe(&mut self.netlink).map_err(Failure::Observe)?
            }
        };
        let facts = node::facts(&self.config, &self.snapshot, &found);
        for name in self.config.uplinks.iter().flatten().filter(|name| !facts.uplinks.contains(*name)) {
            failures.push(Failure::NoUplink(name.clone()));
        }
        let dns = match &self.names {
            Some(names) => dns_addresses(names.addresses(&self.config, &self.snapshot), &found),
            None => BTreeSet::new(),
        };
        let mac = |name: &str, gateway: &str| {
            let MacAddress(mac) = owned::bridge_mac(name, gateway);
            mac
        };
        let wanted = node::wanted(&self.config, &facts, &found, &dns, mac);
        let ops = node::plan(&wanted, &found);
        self.remains = node::remains(&wanted, &found);
        self.node = Some((found, facts));
        if self.change_node(&ops, failures) {
            let found = node::observe(&mut self.netlink).map_err(Failure::Observe)?;
            let facts = node::facts(&self.config, &self.snapshot, &found);
            self.node = Some((found, facts));
        }
        Ok(())
    }

    /// What a pod that comes or goes changes of what is on the node.
    pub(super) fn refresh_devices(&mut self) -> Result<(), Failure> {
        if let Some((found, _)) = &mut self.node {
            found.devices = node::observe_devices(&mut self.netlink).map_err(Failure::Observe)?;
        }
        Ok(())
    }

    /// Carries out operations; says whether the node must be looked at to know what it is now.
    fn change_node(&mut self, ops: &[node::NodeOp], failures: &mut Vec<Failure>) -> bool {
        announce("node", ops);
        let failed = node::apply(&mut self.netlink, ops);
        let unclear = !failed.is_empty() || ops.iter().any(|op| op.entered_into().is_none());
        if let Some((found, _)) = self.node.as_mut().filter(|_| !unclear) {
            ops.iter().for_each(|op| found.enter(op));
        }
        failures.extend(failed.into_iter().map(|(op, source)| node_failure(op, source)));
        unclear
    }

    /// Step 5.
    pub(super) fn route(&mut self, failures: &mut Vec<Failure>) {
        let Some((found, facts)) = &self.node else { return };
        let (wanted, mut problems) = routes::desired(&self.config, &self.snapshot, facts);
        let (mut ops, others) = routes::plan(&wanted, &found.routes);
        if self.services.is_none() {
            // Without a datapath, service addresses would be sent where nobody takes them. Routes that are there
            // stay: they lead to programs that an earlier agent has left at work.
            ops.retain(|op| !op.is_to(SERVICE_DEVICE));
        }
        problems.extend(others);
        let mut problems: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
        let name = &self.config.node_name;
        match self.snapshot.nodes.get(name) {
            None => {
                problems.insert(format!("there is no Node {name}: this node has no networks for pods"));
            }
            _ if self.config.pod_network == PodNetwork::Foreign => {}
            Some(node) if node.pod_cidrs.is_empty() => {
                problems.insert(format!("Node {name} has no spec.podCIDRs yet: no pod is attached before"));
            }
            Some(_) => {}
        }
        problems.extend(node::rivals(&self.config.bridge, facts, found));
        if self.config.pod_network == PodNetwork::Foreign {
            problems.extend(not_served(&self.snapshot, &self.config, &self.attachments, facts));
        }
        let new: Vec<_> = problems.difference(&self.told).collect();
        for problem in new.iter().take(TOLD) {
            warn!("{problem}");
        }
        if new.len() > TOLD {
            warn!("and {} more of the kind", new.len() - TOLD);
        }
        self.told = problems;
        announce("routes", &ops);
        let failed = routes::apply(&mut self.netlink, &ops);
        if let Some((found, _)) = &mut self.node {
            // After a failure it is looked at once more in any case.
            routes::carried_out(&mut found.routes, ops.iter());
        }
        failures.extend(failed.into_iter().map(|(op, source)| node_failure(op, source)));
        let remains = std::mem::take(&mut self.remains);
        // A device that goes is heard of.
        self.change_node(&remains, failures);
    }

    /// Step 7.
    pub(super) fn describe_node(&mut self) -> Result<(), Failure> {
        let Some((_, facts)) = &self.node else { return Ok(()) };
        if facts.pod_cidrs.is_empty() {
            return Ok(());
        }
        let description = NodeConfig {
            pod_cidrs: facts.pod_cidrs.clone(),
            mtu: Some(facts.mtu),
            bpffs: Some(self.config.bpffs_dir.clone()),
        };
        if description.write(&self.config.state_dir)? {
            info!(networks = ?facts.pod_cidrs, "pods may be attached");
        }
        if self.services.is_some() || !self.config.proxy {
            self.tell_runtime()?;
        }
        Ok(())
    }

    /// Tells the container runtime of the plugin, and its owner who else does.
    fn tell_runtime(&mut self) -> Result<(), Failure> {
        let Some(folder) = &self.config.cni_conf_dir else { return Ok(()) };
        let others = conflist::others(folder)?;
        self.metrics.set_foreign_cni(others.len());
        for conflist::Other { path, wins } in others {
            if self.told_files.insert(path.clone()) {
                let path = path.display();
                if wins {
                    warn!("{path} goes before ours: the container runtime does not call this plugin");
                } else {
                    warn!("{path} is there beside ours; the container runtime passes over it");
                }
            }
        }
        if conflist::ensure(folder, &conflist::text(&self.config))? {
            info!(file = %folder.join(conflist::FILE).display(), "the container runtime is told");
        }
        Ok(())
    }
}

/// What of another plugin's network is out of reach.
fn not_served(
    snapshot: &Snapshot,
    config: &Config,
    attachments: &[Attachment],
    facts: &Facts,
) -> Vec<String> {
    let own = facts.addresses.keys().copied().collect();
    let unseen = foreign::unseen(snapshot, &config.node_name, attachments, &own);
    let pods = unseen.into_iter().map(|(address, service)| {
        format!(
            "{address}, an endpoint of {service}, is on this node, and no veth pair leads to it: what it answers is not translated"
        )
    });
    let devices = facts.unserved.iter().map(|device| {
        format!(
            "{device} leads to pods of other nodes and has no link layer: what they answer is not translated"
        )
    });
    devices.chain(pods).collect()
}

/// Tells what is about to be done.
fn announce<T: Display>(part: &'static str, ops: &[T]) {
    for op in ops.iter().take(TOLD) {
        info!(part, "{op}");
    }
    let more = ops.get(TOLD..).unwrap_or_default();
    if !more.is_empty() {
        info!(part, "and {} operations more", more.len());
    }
    for op in more {
        debug!(part, "{op}");
    }
}

fn node_failure(operation: &impl Display, source: sluice_netlink::Error) -> Failure {
    Failure::Node { operation: operation.to_string(), source }
}

/// The addresses of DNS that the service device holds: those that no other device has.
fn dns_addresses(mut addresses: BTreeSet<IpAddr>, found: &Found) -> BTreeSet<IpAddr> {
    let is_held = |ip: &IpAddr| {
        found.addresses.iter().any(|(device, address)| device != SERVICE_DEVICE && address.addr() == *ip)
    };
    addresses.retain(|ip| !ip.is_loopback() && !ip.is_unspecified() && !is_held(ip));
    addresses
}
