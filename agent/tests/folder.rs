//! The folder source on real files: editors, renames, symbolic links, mistakes, several nodes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use sluice_agent::{
    folder::{FolderSource, Input, PodAddresses},
    source::{Delta, Update},
};
use sluice_model::{Changes, ObjectName, Snapshot};
use tempfile::TempDir;

/// A running source and what a loop would know from it.
struct Running {
    updates: mpsc::Receiver<Update>,
    records: mpsc::Sender<Input>,
    snapshot: Snapshot,
    faults: usize,
}

impl Running {
    fn start(folder: &Path, node: &str, publish: bool) -> Self {
        let (source, records) = FolderSource::open(folder, node.into(), publish).unwrap();
        let (sender, updates) = mpsc::channel();
        source.run(move |update| sender.send(update).is_ok()).unwrap();
        records.send(Input::Records(PodAddresses::new())).unwrap();
        let mut running = Self { updates, records, snapshot: Snapshot::default(), faults: 0 };
        let first = running.updates.recv_timeout(Duration::from_secs(10)).expect("the first update");
        running.apply(first);
        running
    }

    fn apply(&mut self, update: Update) {
        let mut changes = Changes::default();
        self.faults = update.faults;
        for delta in update.deltas {
            match delta {
                Delta::Put(object) => self.snapshot.apply(object, &mut changes),
                Delta::Remove(key) => self.snapshot.remove(&key, &mut changes),
            }
        }
    }

    /// Waits until the names of the namespaces are these; gives the time that took.
    fn until(&mut self, expected: &[&str]) -> Duration {
        let start = Instant::now();
        loop {
            let held: Vec<_> = self.snapshot.namespaces.keys().map(|name| &**name).collect();
            if held == expected {
                return start.elapsed();
            }
            // Below the period of the rescan, so that the notices themselves are what is tested.
            let left = Duration::from_secs(4).checked_sub(start.elapsed());
            let update = left.and_then(|left| self.updates.recv_timeout(left).ok());
            let held = format!("{held:?}");
            self.apply(update.unwrap_or_else(|| panic!("still {held}, not {expected:?}")));
        }
    }
}

fn namespaces(names: &[&str]) -> String {
    let document = |name: &&str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    names.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn files_that_come_change_and_go() {
    let folder = folder();
    fs::write(folder.path().join("a.yaml"), namespaces(&["a"])).unwrap();
    let mut running = Running::start(folder.path(), "one", false);
    running.until(&["a"]);
    fs::write(
        folder.path().join("b.json"),
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}"#,
    )
    .unwrap();
    running.until(&["a", "b"]);
    fs::write(folder.path().join("a.yaml"), namespaces(&["c"])).unwrap();
    running.until(&["b", "c"]);
    fs::remove_file(folder.path().join("b.json")).unwrap();
    running.until(&["c"]);
}

#[test]
fn a_change_is_seen_within_milliseconds() {
    let folder = folder();
    let mut running = Running::start(folder.path(), "one", false);
    let mut times: Vec<_> = (0..21)
        .map(|round| {
            let name = format!("n{round}");
            fs::write(folder.path().join("a.yaml"), namespaces(&[&name])).unwrap();
            running.until(&[&name])
        })
        .collect();
    times.sort();
    // The median, as this runs beside other tests on few processors.
    assert!(times[10] < Duration::from_millis(30), "{times:?}");
}

#[test]
fn files_are_replaced_by_rename_and_by_link() {
    let folder = folder();
    let path = folder.path().join("a.yaml");
    let mut running = Running::start(folder.path(), "one", false);
    // As an editor does it: a temporary file with another name, then a rename over the old one.
    fs::write(folder.path().join(".a.yaml.swp"), namespaces(&["wrong"])).unwrap();
    fs::write(folder.path().join("a.yaml~"), namespaces(&["wrong"])).unwrap();
    fs::write(folder.path().join(".new"), namespaces(&["a"])).unwrap();
    fs::rename(folder.path().join(".new"), &path).unwrap();
    running.until(&["a"]);
    fs::rename(&path, folder.path().join("b.yaml")).unwrap();
    fs::write(&path, namespaces(&["c"])).unwrap();
    running.until(&["a", "c"]);
    // As a kubelet mounts a ConfigMap: a link to a link, of which one is swapped.
    for version in ["1", "2"] {
        fs::create_dir(folder.path().join(format!("..{version}"))).unwrap();
        let text = namespaces(&[&format!("v{version}")]);
        fs::write(folder.path().join(format!("..{version}/d.yaml")), text).unwrap();
    }
    symlink("..1", folder.path().join("..data")).unwrap();
    symlink("..data/d.yaml", folder.path().join("d.yaml")).unwrap();
    running.until(&["a", "c", "v1"]);
    symlink("..2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    running.until(&["a", "c", "v2"]);
}

#[test]
fn half_a_file_is_not_read() {
    use std::io::Write;
    let folder = folder();
    let path = folder.path().join("a.yaml");
    fs::write(&path, namespaces(&["a", "b"])).unwrap();
    let mut running = Running::start(folder.path(), "one", false);
    running.until(&["a", "b"]);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(namespaces(&["a"]).as_bytes()).unwrap();
    file.flush().unwrap();
    // Another file's change gets through meanwhile; the one that is still being written has not changed.
    fs::write(folder.path().join("c.yaml"), namespaces(&["c"])).unwrap();
    running.until(&["a", "b", "c"]);
    drop(file);
    running.until(&["a", "c"]);
}

#[test]
fn a_mistake_keeps_what_was_and_the_rest_goes_on() {
    let folder = folder();
    fs::write(folder.path().join("a.yaml"), namespaces(&["a", "b"])).unwrap();
    let mut running = Running::start(folder.path(), "one", false);
    running.until(&["a", "b"]);
    fs::write(folder.path().join("a.yaml"), namespaces(&["a", "new"]) + "---\nkind: [").unwrap();
    running.until(&["a", "b", "new"]);
    assert_eq!(running.faults, 1);
    fs::write(folder.path().join("c.yaml"), namespaces(&["c"])).unwrap();
    running.until(&["a", "b", "c", "new"]);
    fs::write(folder.path().join("a.yaml"), namespaces(&["a"])).unwrap();
    running.until(&["a", "c"]);
    assert_eq!(running.faults, 0);
}

#[test]
fn a_mistake_without_consequences_and_an_unreadable_file_are_counted() {
    let folder = folder();
    fs::write(folder.path().join("a.yaml"), namespaces(&["a"])).unwrap();
    let mut running = Running::start(folder.path(), "one", false);
    running.until(&["a"]);
    for (text, faults) in [("kind: [".to_owned(), 1), (namespaces(&["a"]), 0)] {
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let update = running.updates.recv_timeout(Duration::from_secs(4)).expect("an update");
        running.apply(update);
        assert_eq!(running.faults, faults);
    }
    // Not text at all.
    fs::write(folder.path().join("b.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let update = running.updates.recv_timeout(Duration::from_secs(4)).expect("an update");
    running.apply(update);
    assert_eq!(running.faults, 1);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    let update = running.updates.recv_timeout(Duration::from_secs(4)).expect("an update");
    running.apply(update);
    assert_eq!(running.faults, 0);
    running.until(&["a"]);
}

#[test]
fn two_nodes_that_share_a_folder_know_each_others_pods() {
    let folder = folder();
    let manifest = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
        spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: web}}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: b, labels: {app: web}}\n";
    fs::write(folder.path().join("web.yaml"), manifest).unwrap();
    let mut nodes = ["one", "two"].map(|node| Running::start(folder.path(), node, true));
    let pods = [("a", "10.1.0.2"), ("b", "10.2.0.2")];
    for (node, (name, address)) in nodes.iter().zip(pods) {
        let records =
            PodAddresses::from([(ObjectName::new("default", name), vec![address.parse().unwrap()])]);
        node.records.send(Input::Records(records)).unwrap();
    }
    let expected = ["10.1.0.2 one", "10.2.0.2 two"];
    let start = Instant::now();
    for node in &mut nodes {
        loop {
            let web = ObjectName::new("default", "web");
            let slices = node.snapshot.slices_of(&web).flat_map(|slice| slice.endpoints.clone());
            let held: Vec<_> =
                slices.map(|e| format!("{} {}", e.addresses[0], e.node.as_deref().unwrap_or("-"))).collect();
            if held == expected {
                break;
            }
            let left = Duration::from_secs(10).checked_sub(start.elapsed()).expect("in time");
            let update = node.updates.recv_timeout(left).unwrap_or_else(|_| panic!("still {held:?}"));
            node.apply(update);
        }
    }
    // Each node writes its own file and no other.
    let mut files: Vec<_> =
        fs::read_dir(folder.path().join(".sluice")).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["one.yaml", "two.yaml"]);
}

#[test]
fn a_folder_that_goes_takes_nothing_away_and_may_come_back() {
    let parent = folder();
    let folder = parent.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), namespaces(&["a"])).unwrap();
    let mut running = Running::start(&folder, "one", false);
    running.until(&["a"]);
    fs::rename(&folder, parent.path().join("old")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), namespaces(&["a"])).unwrap();
    fs::write(folder.join("b.yaml"), namespaces(&["b"])).unwrap();
    let start = Instant::now();
    while running.snapshot.namespaces.len() < 2 {
        let left = Duration::from_secs(20).checked_sub(start.elapsed()).expect("in time");
        let update = running.updates.recv_timeout(left).expect("the new folder is read");
        running.apply(update);
        assert!(running.snapshot.namespaces.contains_key("a"), "never withdrawn");
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let error = FolderSource::open(Path::new("/does/not/exist"), "one".into(), false).unwrap_err();
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
}
