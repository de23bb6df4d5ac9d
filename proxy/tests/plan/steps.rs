//! The cluster's life, a step at a time: services come, change and go.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use proptest::prelude::*;
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Object, ObjectKey, ObjectName, Protocol,
    Service, ServiceKind, ServicePort, Snapshot, TargetPort, TrafficPolicy,
};

/// A step of the cluster's life: service `service` gets these endpoints, or goes.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) service: u8,
    pub(crate) endpoints: Option<BTreeSet<u8>>,
    pub(crate) draining: BTreeSet<u8>,
    pub(crate) node_port: bool,
    /// Traffic policy Local, inside and outside.
    pub(crate) local: (bool, bool),
    pub(crate) affinity: bool,
    pub(crate) restart: bool,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let endpoints = proptest::collection::btree_set(1u8..12, 0..8);
    let draining = proptest::collection::btree_set(1u8..12, 0..3);
    let flags = (any::<bool>(), any::<(bool, bool)>(), any::<bool>(), proptest::bool::weighted(0.1));
    (0u8..4, proptest::option::weighted(0.85, endpoints), draining, flags).prop_map(
        |(service, endpoints, draining, (node_port, local, affinity, restart))| Step {
            service,
            endpoints,
            draining,
            node_port,
            local,
            affinity,
            restart,
        },
    )
}

pub(crate) fn name(service: u8) -> ObjectName {
    ObjectName::new("default", format!("svc{service}"))
}

pub(crate) fn service_object(step: &Step) -> Service {
    Service {
        kind: if step.node_port { ServiceKind::NodePort } else { ServiceKind::ClusterIp },
        cluster_ips: vec![Ipv4Addr::new(10, 96, 0, step.service + 1).into()],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: TargetPort::Number(8080),
            node_port: step.node_port.then_some(30_000 + u16::from(step.service)),
        }],
        external_traffic_policy: policy(step.local.1),
        internal_traffic_policy: policy(step.local.0),
        affinity: step.affinity.then_some(Duration::from_secs(60)),
        ..Service::new(name(step.service))
    }
}

fn policy(local: bool) -> TrafficPolicy {
    if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn slice_object(step: &Step, endpoints: &BTreeSet<u8>) -> EndpointSlice {
    let endpoint = |last: &u8, ready: bool| Endpoint {
        addresses: vec![Ipv4Addr::new(10, 244, 0, *last).into()],
        ready,
        serving: true,
        terminating: !ready,
        hostname: None,
        node: Some(if last.is_multiple_of(2) { "n1".into() } else { "n2".into() }),
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    let ready = endpoints.iter().map(|last| endpoint(last, true));
    let draining = step.draining.difference(endpoints).map(|last| endpoint(last, false));
    EndpointSlice {
        name: name(step.service),
        service: Some(name(step.service)),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: ready.chain(draining).collect(),
        last_change: None,
    }
}

pub(crate) fn advance(snapshot: &mut Snapshot, step: &Step) -> Changes {
    let mut changes = Changes::default();
    match &step.endpoints {
        Some(endpoints) => {
            snapshot.apply(Object::Service(service_object(step)), &mut changes);
            snapshot.apply(Object::EndpointSlice(slice_object(step, endpoints)), &mut changes);
        }
        None => {
            snapshot.remove(&ObjectKey::Service(name(step.service)), &mut changes);
            snapshot.remove(&ObjectKey::EndpointSlice(name(step.service)), &mut changes);
        }
    }
    changes
}
