//! The steps of a pass that are about services: the datapath, what it must know, and where its programs are attached.

use std::time::{Instant, SystemTime};

use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::Changes;
use tracing::{info, warn};

use super::{Agent, Dirty};
use crate::{
    failure::Failure,
    health_ports::Place,
    metrics::PassRecord,
    names::Names,
    run::Depth,
    services::{Services, wanted_hooks},
};

impl Agent {
    /// Steps 2 to 4. `changes` are those of the cluster, `dirty` says what else is to be looked at.
    pub(super) fn serve_services(
        &mut self,
        depth: Depth,
        dirty: &Dirty,
        changes: &Changes,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Failure> {
        let Some((found, facts)) = &self.node else { return Ok(()) };
        // The programs have the service device's index in them: one that was made anew needs programs anew.
        let device = found.devices.get(SERVICE_DEVICE).map_or(0, |device| device.index);
        // So does one whose pins somebody has removed.
        self.services.take_if(|services| {
            services.service_ifindex() != device || depth == Depth::Repair && !services.is_pinned()
        });
        let fresh = self.services.is_none();
        let services = match &mut self.services {
            Some(services) => services,
            None => {
                let services = Services::open(&self.config, device)?;
                for feature in &services.features().features {
                    self.metrics.set_feature(feature.name, feature.present);
                }
                self.services.insert(services)
            }
        };
        let whole = fresh || depth == Depth::Repair;
        // Nothing that fails here keeps the services from being served.
        if whole || dirty.node {
            failures.extend(services.set_facts(facts, whole).err().map(Failure::from));
        }
        if whole || dirty.pods {
            let node = (found, facts);
            let adopted = services.adopt_pods(&self.config, &mut self.attachments, node, &mut self.netlink);
            failures.extend(adopted.err());
        }
        services.set_local_pages(self.names.as_ref().map(Names::pages).unwrap_or_default());
        let start = Instant::now();
        // What is fresh has just read the maps.
        let errors = services.sync(&self.snapshot, changes, whole && !fresh);
        let pass = PassRecord { duration: start.elapsed(), full: whole, end: SystemTime::now() };
        self.metrics.passed(pass, errors.is_empty());
        failures.extend(errors);
        if whole || dirty.node || dirty.pods {
            let wanted = wanted_hooks(&self.config, facts, &self.attachments, found);
            failures.extend(services.attach(&self.config, &wanted, &mut self.netlink, whole));
        }
        Ok(())
    }

    /// Health checks of load balancers; after the services that they speak of.
    pub(super) fn answer_health_checks(&mut self, dirty: &Dirty, failures: &mut Vec<Failure>) {
        let (Some(health_ports), Some((found, facts))) = (&mut self.health_ports, &self.node) else { return };
        let held = found.addresses.iter().map(|(_, network)| network.addr());
        let place = Place::of(&self.config.node_port_addresses, &facts.addresses, held);
        let errors = health_ports.sync(&self.snapshot, &dirty.changes, &self.config.node_name, place);
        failures.extend(errors.into_iter().map(Failure::from));
    }
    /// Node ports that processes of the node have, or would have.
    pub(super) fn mind_node_ports(&mut self, dirty: &Dirty, whole: bool, failures: &mut Vec<Failure>) {
        let Some((found, facts)) = &self.node else { return };
        let held = found.addresses.iter().map(|(_, network)| network.addr());
        let place = Place::of(&self.config.node_port_addresses, &facts.addresses, held);
        let taken = match self.node_ports.sync(&self.snapshot, &dirty.changes, place, whole) {
            Ok(taken) => taken,
            Err(error) => return failures.push(Failure::NodePorts(error)),
        };
        self.metrics.set_taken_ports(taken.len());
        for taken in taken.difference(&self.taken_ports) {
            warn!("{taken}");
            if let Some(notices) = &self.notices {
                notices(taken.notice(&self.config.node_name));
            }
        }
        for taken in self.taken_ports.difference(taken) {
            info!("no longer: {taken}");
        }
        self.taken_ports.clone_from(taken);
    }
}
