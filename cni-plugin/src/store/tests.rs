//! The store against a plain model, in directories of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use proptest::prelude::*;
use sluice_netlink::MacAddress;
use tempfile::TempDir;

use super::{pool::Pool, *};
use crate::range::Range;

pub(crate) fn attachment(container_id: &str) -> Attachment {
    Attachment {
        state: State::Adding,
        version: RECORD_VERSION,
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        network: "net".to_owned(),
        netns: PathBuf::from("/run/netns/x"),
        pod: Some(PodName { namespace: "shop".to_owned(), name: container_id.to_owned(), uid: None }),
        addresses: Vec::new(),
        host_veth: "sluice01234567".to_owned(),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        bridge: "sluice0".to_owned(),
        gateway_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        gateway_device: None,
        bpffs: PathBuf::from("/sys/fs/bpf/sluice"),
        host_ports: Vec::new(),
        masquerade: false,
        conditions_v4: Vec::new(),
        conditions_v6: Vec::new(),
        aliases: Vec::new(),
        shaped: false,
        bridged: false,
    }
}

fn range(subnet: &str) -> Range {
    Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
}

fn add(network: &Network, id: &str, ranges: &[Range], address: Option<IpAddr>) -> Result<IpAddr> {
    let mut held = network.create(id, "eth0")?;
    match network.reserve(&mut held, attachment(id), &[Wanted { ranges, address }]) {
        Ok(_) => {
            held.set_state(State::Ready)?;
            Ok(held.record.unwrap().addresses[0].addr())
        }
        Err(error) => {
            network.remove(held)?;
            Err(error)
        }
    }
}

fn delete(network: &Network, id: &str) -> bool {
    match network.hold(id, "eth0").unwrap() {
        Some(held) => {
            network.remove(held).unwrap();
            true
        }
        None => false,
    }
}

fn open(directory: &TempDir) -> Network {
    Network::open(directory.path(), "net").unwrap()
}

#[test]
fn what_is_attached_is_listed_and_what_is_removed_is_gone_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    assert!(list(directory.path()).unwrap().attachments.is_empty(), "no state yet is no error");
    let network = open(&directory);
    let ranges = [range("10.1.0.0/24")];
    let address = add(&network, "c1", &ranges, None).unwrap();
    assert_eq!(address.to_string(), "10.1.0.2");
    let listing = list(directory.path()).unwrap();
    let expected = Attachment {
        state: State::Ready,
        addresses: vec!["10.1.0.2/24".parse().unwrap()],
        ..attachment("c1")
    };
    assert_eq!(listing.attachments, [expected]);
    assert!(delete(&network, "c1"));
    assert!(!delete(&network, "c1"), "a second time there is nothing to do");
    assert!(list(directory.path()).unwrap().attachments.is_empty());
    assert!(entries(&network.directory.join(ADDRESSES)).unwrap().is_empty());
}

#[test]
fn an_attachment_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/24")];
    add(&network, "c1", &ranges, None).unwrap();
    let error = add(&network, "c1", &ranges, None).unwrap_err().to_string();
    assert_eq!(error, "container c1 is attached by eth0 already; delete that attachment first");
}

#[test]
fn one_that_works_long_holds_up_nobody_but_those_who_want_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/24")];
    add(&network, "slow", &ranges, None).unwrap();
    let slow = network.hold("slow", "eth0").unwrap().unwrap();
    add(&network, "other", &ranges, None).unwrap();
    assert!(delete(&network, "other"));
    assert_eq!(list(directory.path()).unwrap().attachments.len(), 1, "and it can be looked at");
    let (begun, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let same = scope.spawn(|| {
            begun.send(()).unwrap();
            delete(&network, "slow")
        });
        wait.recv().unwrap();
        assert!(!same.is_finished());
        network.remove(slow).unwrap();
        assert!(!same.join().unwrap(), "it waited, and then there was nothing left to delete");
    });
}

#[test]
fn addresses_rest_as_long_as_they_can() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/29")];
    let mut given = Vec::new();
    for _ in 0..6 {
        given.push(add(&network, "c1", &ranges, None).unwrap().to_string());
        delete(&network, "c1");
    }
    assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"]);
}

#[test]
fn a_full_range_says_so_and_the_next_range_helps() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let small = [range("10.1.0.0/30")];
    add(&network, "c1", &small, None).unwrap();
    let error = add(&network, "c2", &small, None).unwrap_err().to_string();
    assert_eq!(error, "no address is free in 10.1.0.1-10.1.0.2 of network net");
    assert_eq!(network.attachments().unwrap(), [("c1".to_owned(), "eth0".to_owned())], "c2 left nothing");
    let both = [range("10.1.0.0/30"), range("10.2.0.0/30")];
    assert_eq!(add(&network, "c2", &both, None).unwrap().to_string(), "10.2.0.2");
}

#[test]
fn an_address_that_was_asked_for_is_given_or_its_holder_named() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    // The second is far outside what is handed out of itself.
    for (index, wanted) in ["10.1.0.77", "fd00::dead:beef"].into_iter().enumerate() {
        let address: IpAddr = wanted.parse().unwrap();
        let ranges = [range(if address.is_ipv4() { "10.1.0.0/24" } else { "fd00::/64" })];
        assert_eq!(add(&network, &format!("c{index}"), &ranges, Some(address)).unwrap(), address);
        let error = add(&network, "other", &ranges, Some(address)).unwrap_err().to_string();
        assert_eq!(error, format!("address {wanted} is held by c{index}:eth0"));
    }
    let ranges = [range("10.1.0.0/24")];
    for gateway_or_foreign in ["10.1.0.1", "10.1.0.255", "10.2.0.1", "fd00::1"] {
        let error = add(&network, "other", &ranges, Some(gateway_or_foreign.parse().unwrap())).unwrap_err();
        assert!(matches!(error, StoreError::NotOffered { .. }), "{gateway_or_foreign}: {error}");
    }
}

#[test]
fn networks_do_not_share_addresses_or_names() {
    let directory = tempfile::tempdir().unwrap();
    let ranges = [range("10.1.0.0/24")];
    for name in ["one", "two"] {
        let network = Network::open(directory.path(), name).unwrap();
        assert_eq!(add(&network, "c1", &ranges, None).unwrap().to_string(), "10.1.0.2");
    }
    assert_eq!(list(directory.path()).unwrap().attachments.len(), 2);
}

#[test]
fn a_reboot_frees_everything_and_a_restart_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ranges = [range("10.1.0.0/30")];
    add(&open(&directory), "c1", &ranges, None).unwrap();
    // Another process in the same boot.
    assert!(add(&open(&directory), "c2", &ranges, None).is_err());
    // The state directory as the next boot finds it: what is there is from another boot.
    let boot = boot_directory(directory.path()).unwrap();
    let earlier = boot.with_file_name("11111111-2222-3333-4444-555555555555");
    fs::rename(&boot, &earlier).unwrap();
    assert!(list(directory.path()).unwrap().attachments.is_empty());
    assert!(!delete(&open(&directory), "c1"), "a DEL for what an earlier boot attached succeeds");
    assert!(!earlier.exists());
    assert_eq!(add(&open(&directory), "c2", &ranges, None).unwrap().to_string(), "10.1.0.2");
}

#[test]
fn a_damaged_record_is_reported_and_deleting_it_frees_its_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/30")];
    add(&network, "c1", &ranges, None).unwrap();
    fs::write(network.record_path("c1", "eth0"), "{\"state\":1,\"vers").unwrap();
    let listing = list(directory.path()).unwrap();
    assert!(listing.attachments.is_empty());
    assert!(listing.damaged[0].to_string().contains("c1:eth0 is damaged"), "{:?}", listing.damaged);
    assert!(add(&network, "c2", &ranges, None).is_err(), "its address is not given to another");
    assert!(delete(&network, "c1"));
    assert_eq!(add(&network, "c2", &ranges, None).unwrap().to_string(), "10.1.0.2");
}

#[test]
fn a_record_of_a_newer_version_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    add(&network, "c1", &[range("10.1.0.0/30")], None).unwrap();
    fs::write(network.record_path("c1", "eth0"), "{\"state\":1,\"version\":2}").unwrap();
    let damaged = list(directory.path()).unwrap().damaged;
    assert!(
        damaged[0].to_string().ends_with("has version 2, which this version does not know"),
        "{damaged:?}"
    );
}

#[test]
fn a_damaged_or_missing_pool_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/24")];
    for index in 0..3 {
        add(&network, &format!("c{index}"), &ranges, None).unwrap();
    }
    let pool = network.pool_path(&ranges[0]);
    fs::write(&pool, "nonsense").unwrap();
    assert_eq!(add(&network, "c3", &ranges, None).unwrap().to_string(), "10.1.0.5");
    fs::remove_file(&pool).unwrap();
    assert_eq!(add(&network, "c4", &ranges, None).unwrap().to_string(), "10.1.0.6");
    delete(&network, "c1");
    fs::remove_file(&pool).unwrap();
    assert_eq!(add(&network, "c5", &ranges, None).unwrap().to_string(), "10.1.0.3");
}

#[test]
fn the_time_to_allocate_does_not_depend_on_how_full_the_range_is() {
    let directory = tempfile::tempdir().unwrap();
    let network = open(&directory);
    let ranges = [range("10.1.0.0/16")];
    // All but the last 600 of a /16, as the pool sees them.
    let size = ranges[0].size();
    Pool::build(&network.pool_path(&ranges[0]), size, 0..size - 600).unwrap();
    let start = std::time::Instant::now();
    for index in 0..100 {
        add(&network, &format!("c{index}"), &ranges, None).unwrap();
    }
    let each = start.elapsed() / 100;
    assert!(each < std::time::Duration::from_millis(5), "{each:?} each");
    assert!(network.holder("10.1.253.167".parse().unwrap()).unwrap().is_some(), "they came from the end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever stands in the files: no panic, no address given twice, and a DEL that succeeds.
    #[test]
    fn nothing_in_the_files_does_harm(
        record in proptest::collection::vec(any::<u8>(), 0..80),
        json in any::<bool>(),
        pool in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let network = open(&directory);
        let ranges = [range("10.1.0.0/29")];
        let first = add(&network, "c1", &ranges, None).unwrap();
        let mut bytes = record;
        if json {
            // The start of a record, and then something else.
            let whole = attachment("c1").to_bytes();
            let kept = whole.len() * bytes.len() / 80;
            bytes = [&whole[..kept], &bytes[..]].concat();
        }
        fs::write(network.record_path("c1", "eth0"), &bytes).unwrap();
        fs::write(network.pool_path(&ranges[0]), &pool).unwrap();
        let _ = list(directory.path()).unwrap();
        let second = add(&network, "c2", &ranges, None).unwrap();
        prop_assert_ne!(first, second);
        let gone = delete(&network, "c1");
        prop_assert!(gone);
        let left = entries(&network.directory.join(ADDRESSES)).unwrap();
        prop_assert_eq!(left.len(), 1, "only that of c2");
        prop_assert!(network.drop_orphans().is_ok());
    }
}

/// What is done to the store.
#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    AddAt(u8, u8),
    Delete(u8),
    /// A process that died after it wrote its record, with so many of its address links and pool bits made.
    Crash(u8, u8),
    LosePool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12_u8).prop_map(Step::Add),
        1 => (0..12_u8, 0..16_u8).prop_map(|(id, address)| Step::AddAt(id, address)),
        3 => (0..12_u8).prop_map(Step::Delete),
        2 => (0..12_u8, 0..3_u8).prop_map(|(id, step)| Step::Crash(id, step)),
        1 => Just(Step::LosePool),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No address twice, none lost, whatever happens in whatever order.
    #[test]
    fn the_store_behaves_as_a_map_from_attachments_to_addresses(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let network = open(&directory);
        // Room for 5 in 10.1.0.0/29.
        let ranges = [range("10.1.0.0/29")];
        let room: BTreeSet<IpAddr> = (2..7).map(|last| IpAddr::from([10, 1, 0, last])).collect();
        let mut model: BTreeMap<u8, Option<IpAddr>> = BTreeMap::new();
        for step in steps {
            let held: BTreeSet<IpAddr> = model.values().copied().flatten().collect();
            match step {
                Step::Add(id) | Step::AddAt(id, _) => {
                    let wanted = match step {
                        Step::AddAt(_, last) => Some(IpAddr::from([10, 1, 0, last])),
                        _ => None,
                    };
                    match add(&network, &format!("c{id}"), &ranges, wanted) {
                        Ok(address) => {
                            prop_assert!(!model.contains_key(&id));
                            prop_assert!(room.contains(&address) && !held.contains(&address));
                            prop_assert!(wanted.is_none_or(|wanted| wanted == address));
                            model.insert(id, Some(address));
                        }
                        Err(StoreError::Duplicate { .. }) => prop_assert!(model.contains_key(&id)),
                        Err(StoreError::Exhausted { .. }) => prop_assert_eq!(&held, &room),
                        Err(StoreError::Taken { address, .. }) => prop_assert!(held.contains(&address)),
                        Err(StoreError::NotOffered { address, .. }) => prop_assert!(!room.contains(&address)),
                        Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    }
                }
                Step::Delete(id) => {
                    prop_assert_eq!(delete(&network, &format!("c{id}")), model.remove(&id).is_some());
                }
                Step::Crash(id, step) => {
                    let Ok(held_record) = network.create(&format!("c{id}"), "eth0") else { continue };
                    model.insert(id, None);
                    let Some(free) = room.difference(&held).next().copied().filter(|_| step > 0) else { continue };
                    let mut record = attachment(&format!("c{id}"));
                    record.addresses = vec![ranges[0].with_prefix(free)];
                    held_record.file.write_all_at(&record.to_bytes(), 0).unwrap();
                    if step > 1 {
                        fs::hard_link(&held_record.path, network.address_path(free)).unwrap();
                        model.insert(id, Some(free));
                    }
                }
                Step::LosePool => {
                    let _ = fs::remove_file(network.pool_path(&ranges[0]));
                }
            }
        }
        for id in model.keys() {
            let gone = delete(&network, &format!("c{id}"));
            prop_assert!(gone);
        }
        prop_assert!(entries(&network.directory.join(ADDRESSES)).unwrap().is_empty());
        for index in 0..5 {
            add(&network, &format!("after{index}"), &ranges, None).unwrap();
        }
    }
}
