//! Manifests in; maps, operations, zone and routes out, against the files that lie beside the manifests. No namespace, no
//! root: the maps are in memory, and the DNS server answers on a free port of the loopback device.
//!
//! ```text
//! tests/scenarios/<scenario>/<step>/*.yaml       the whole folder of manifests at this step
//! tests/scenarios/<scenario>/<step>/operations   what the proxy does to the maps to get there from the step before
//! tests/scenarios/<scenario>/<step>/maps         what the services' maps hold then
//! tests/scenarios/<scenario>/<step>/zone         what the names of the cluster stand for then
//! tests/scenarios/<scenario>/<step>/routes       the node's routes, and what is wrong with the rest
//! ```
//!
//! After the last step all manifests go, and the maps must be empty. `UPDATE_EXPECT=1` writes the files.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod zone;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use sluice_agent::config::{Config, Settings};
use sluice_agent::folder::View;
use sluice_agent::node::{self, Device, Found, FoundRoute};
use sluice_agent::routes;
use sluice_agent::source::Delta;
use sluice_ebpf_common::{FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, SERVICE_FAST_PATH};
use sluice_model::{Changes, Snapshot};
use sluice_proxy::{MapOp, MapStore, NodeView, Observed, Proxy, StoreError};

use crate::zone::Zone;

/// The node whose state is rendered.
const NODE: &str = "node1";

/// Maps in memory, and what was done to them.
#[derive(Clone, Default)]
struct Maps(Rc<RefCell<(Observed, Vec<String>)>>);

impl MapStore for Maps {
    fn dump(&self) -> Result<Observed, StoreError> {
        Ok(self.0.borrow().0.clone())
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), StoreError> {
        let mut held = self.0.borrow_mut();
        held.0.apply(op);
        held.1.push(op.to_string());
        Ok(())
    }
}

/// One node's view of a scenario.
struct Scenario {
    view: View,
    snapshot: Snapshot,
    maps: Maps,
    proxy: Proxy<Maps>,
    zone: Zone,
    files: BTreeMap<PathBuf, String>,
}

/// What a step led to.
struct Rendered {
    operations: String,
    zone: String,
}

impl Scenario {
    fn new() -> Self {
        let maps = Maps::default();
        let node = NodeView { name: NODE.into(), fast_path: true, ..NodeView::default() };
        let proxy = Proxy::new(maps.clone(), node).unwrap();
        let (view, snapshot, files) = (View::new(NODE.into()), Snapshot::default(), BTreeMap::new());
        Self { view, snapshot, maps, proxy, zone: Zone::new(), files }
    }

    /// Makes the folder what these files are, and lets proxy and DNS follow.
    fn step(&mut self, files: BTreeMap<PathBuf, String>) -> Rendered {
        let key = |path: &Path| -> Arc<str> { path.file_name().unwrap().to_string_lossy().into() };
        for path in self.files.keys().filter(|path| !files.contains_key(*path)) {
            self.view.remove_file(&key(path));
        }
        for (path, text) in &files {
            self.view.put_file(&key(path), text);
        }
        self.files = files;
        let notes = self.view.take_notes();
        assert!(notes.is_empty(), "mistakes in the manifests: {notes:?}");
        let mut changes = Changes::default();
        for delta in self.view.take_deltas(SystemTime::UNIX_EPOCH) {
            match delta {
                Delta::Put(object) => self.snapshot.apply(object, &mut changes),
                Delta::Remove(key) => self.snapshot.remove(&key, &mut changes),
            }
        }
        let report = self.proxy.sync(&self.snapshot, &changes);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let done = std::mem::take(&mut self.maps.0.borrow_mut().1);
        let operations = done.iter().map(|line| format!("{line}\n")).collect();
        Rendered { operations, zone: self.zone.render(&self.snapshot, &changes) }
    }

    /// The services' maps, frontend by frontend.
    fn maps(&self) -> String {
        let held = &self.maps.0.borrow().0;
        let mut text = String::new();
        for (key, frontend) in &held.frontends {
            let address = SocketAddr::new(key.addr.into(), key.port.to_host());
            let address = match key.proto {
                0 => address.ip().to_string(),
                6 => format!("{address}/TCP"),
                _ => format!("{address}/UDP"),
            };
            let flags = [(FRONTEND_EXTERNAL, "external"), (FRONTEND_LOCAL_SERVER, "local server")];
            let flags = named(frontend.flags, &flags);
            writeln!(text, "frontend {address} -> service {}{flags}", frontend.service).unwrap();
        }
        for (id, service) in &held.services {
            let flags = named(service.flags, &[(SERVICE_FAST_PATH, "fast path")]);
            writeln!(text, "service {id}: {} slots{flags}", service.count).unwrap();
        }
        for (key, backend) in &held.slots {
            writeln!(text, "slot {}/{} -> backend {backend}", key.service, key.index).unwrap();
        }
        for (id, backend) in &held.backends {
            let address = SocketAddr::new(backend.addr.into(), backend.port.to_host());
            writeln!(text, "backend {id}: {address} of service {}", backend.service).unwrap();
        }
        text
    }

    /// The routes of the node, which has an uplink and a default route.
    fn routes(&self) -> String {
        let settings = Settings {
            node_name: Some(NODE.into()),
            manifests: Some("/manifests".into()),
            service_cidrs: Some(vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/108".parse().unwrap()]),
            ..Settings::default()
        };
        let config = Config::new(settings).unwrap();
        let found = found();
        let facts = node::facts(&config, &self.snapshot, &found);
        let (wanted, problems) = routes::desired(&config, &self.snapshot, &facts);
        let mut text = String::new();
        for (network, route) in wanted {
            write!(text, "{network} dev {}", route.device).unwrap();
            for (word, value) in [("via", route.via), ("src", route.source)] {
                if let Some(value) = value {
                    write!(text, " {word} {value}").unwrap();
                }
            }
            if let Some(mtu) = route.mtu {
                write!(text, " mtu {mtu}").unwrap();
            }
            text.push('\n');
        }
        for problem in problems {
            writeln!(text, "problem: {problem}").unwrap();
        }
        text
    }
}

/// What is on the node: an uplink with two addresses, and the loopback device.
fn found() -> Found {
    let device = |index, loopback| Device { index, mtu: 1500, up: true, loopback, ..Device::default() };
    Found {
        devices: [("lo".to_owned(), device(1, true)), ("eth0".to_owned(), device(2, false))].into(),
        addresses: vec![
            ("eth0".into(), "192.168.77.1/24".parse().unwrap()),
            ("eth0".into(), "fd77::1/64".parse().unwrap()),
        ],
        routes: vec![FoundRoute {
            destination: "0.0.0.0/0".parse().unwrap(),
            via: "192.168.77.100".parse().ok(),
            device: Some("eth0".into()),
            source: None,
            mtu: None,
            ours: false,
        }],
        ..Found::default()
    }
}

/// The names of the flags that are set.
fn named(flags: u32, names: &[(u32, &str)]) -> String {
    let set = names.iter().filter(|(flag, _)| flags & flag != 0);
    set.map(|(_, name)| format!(", {name}")).collect()
}

/// The folders or files in a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Compares, or writes; returns the difference.
fn check(path: &Path, rendered: &str) -> Option<String> {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, rendered).unwrap();
        return None;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    (expected != rendered)
        .then(|| format!("{}\n--- expected\n{expected}--- rendered\n{rendered}", path.display()))
}

#[test]
fn manifests_are_rendered_as_expected() {
    let mut differences = Vec::new();
    let scenarios = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"));
    assert!(!scenarios.is_empty());
    for folder in scenarios {
        let mut scenario = Scenario::new();
        for step in entries(&folder) {
            let manifests = entries(&step).into_iter().filter(|path| path.extension().is_some());
            let files =
                manifests.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect();
            let Rendered { operations, zone } = scenario.step(files);
            let (maps, routes) = (scenario.maps(), scenario.routes());
            let rendered = [("operations", operations), ("maps", maps), ("zone", zone), ("routes", routes)];
            differences.extend(rendered.iter().filter_map(|(name, text)| check(&step.join(name), text)));
        }
        let Rendered { zone, .. } = scenario.step(BTreeMap::new());
        assert_eq!(zone, "", "{}: all manifests are gone", folder.display());
        assert_eq!(scenario.maps(), "", "{}: all manifests are gone", folder.display());
    }
    assert!(differences.is_empty(), "UPDATE_EXPECT=1 takes these over:\n{}", differences.join("\n"));
}
