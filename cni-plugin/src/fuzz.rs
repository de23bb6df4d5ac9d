//! Entries for fuzzing: everything of the plugin that reads foreign bytes, each as a function that must not panic
//! whatever it is given. What runs them is in `fuzz/`.

use std::{fs, path::Path};

use crate::{
    check,
    config::Config,
    delegate::{self, Given},
    desired::{self, Desired},
    environment::{Args, Target},
    node::NodeConfig,
    result::AddResult,
    store,
    version::Version,
};

/// The network configuration on standard input, and all that is decided from it before anything is made.
pub fn config(data: &[u8]) {
    let Ok(config) = Config::parse(data) else { return };
    let node =
        NodeConfig { pod_cidrs: "10.244.1.0/24".parse().into_iter().collect(), ..NodeConfig::default() };
    let target = Target {
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        netns: None,
        args: Args::default(),
    };
    if let Some(previous) = &config.prev_result {
        let _ = check::previous_routes(previous);
    }
    for limit in [config.bandwidth().ingress(), config.bandwidth().egress()].into_iter().flatten() {
        assert!(limit.shape(1500).burst >= 1500);
    }
    assert!(config.host_ports().is_ok(), "it was checked");
    let _ = (config.valid_attachments(), config.requested_mac(None), config.requested_addresses());
    let Ok(wanted) = Desired::new(&config, &target, Some(&node)) else { return };
    for wish in &wanted.wishes {
        for range in &wish.ranges {
            assert!(range.size() > 0 && range.index(range.at(range.size() - 1)) == Some(range.size() - 1));
        }
    }
    let routes = desired::routes(&config, &Given::default());
    for version in Version::SUPPORTED {
        let result = AddResult { routes: routes.clone(), ..AddResult::default() };
        let _ = result.to_json(version, config.prev_result.as_ref()).to_string();
    }
}

/// `CNI_ARGS`.
pub fn args(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lookup = |name: &str| {
        let value = match name {
            "CNI_ARGS" => &*text,
            "CNI_IFNAME" => text.get(..text.len().min(4)).unwrap_or("eth0"),
            _ => "c1",
        };
        Some(value.to_owned())
    };
    let _ = Target::read(&lookup, true);
}

/// An attachment's record. One that is read, written and read again is the same.
pub fn record(data: &[u8]) {
    if let Ok(Some(record)) = store::parse_record(Path::new("record"), data) {
        let again = store::parse_record(Path::new("record"), &record.to_bytes());
        let mappings = record.mappings();
        assert!(mappings.iter().all(|mapping| mapping.host_ip.is_ipv4() == mapping.address.is_ipv4()));
        assert_eq!(again.ok().flatten(), Some(record));
    }
}

/// A pool's file. The first two bytes say how large it should be.
pub fn pool(data: &[u8]) {
    let Some((size, bytes)) = data.split_first_chunk::<2>() else { return };
    let size = u32::from(u16::from_le_bytes(*size)).max(1);
    let path = std::env::temp_dir().join(format!("sluice-fuzz-pool-{}", std::process::id()));
    if fs::write(&path, bytes).is_ok() {
        store::try_pool(&path, size);
    }
    let _ = fs::remove_file(&path);
}

/// The agent's description of the node.
pub fn node(data: &[u8]) {
    let _ = serde_json::from_slice::<NodeConfig>(data);
}

/// What another plugin answered that gives out addresses.
pub fn ipam_result(data: &[u8]) {
    for version in Version::SUPPORTED {
        let _ = delegate::parse(data, version);
    }
}
