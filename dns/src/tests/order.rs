//! In which order addresses are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use hickory_proto::{
    op::Message,
    rr::RecordType::{self, A, MX, SRV},
};
use sluice_model::Changes;

use super::{config, exchange, listening, served};
use crate::{
    Corefile, DnsConfig, Order, OrderPolicy, Rules, Upstreams, WeightFile,
    testing::{
        bed::{eventually, in_namespace},
        *,
    },
};

const DB: &str = "db.default.svc.cluster.local.";

fn ordered(order: Order) -> DnsConfig {
    DnsConfig { rules: vec![Rules { order, ..Rules::new(".") }], ..config() }
}

fn preferring(policy: OrderPolicy, networks: &[&str]) -> DnsConfig {
    ordered(Order { policy, prefer: networks.iter().map(|net| net.parse().unwrap()).collect() })
}

/// The configuration that [`served`] makes of one.
fn as_served(config: DnsConfig) -> DnsConfig {
    let upstreams = Upstreams::Addresses(vec!["127.0.0.53:53".parse().unwrap()]);
    DnsConfig { upstreams, ..listening(config) }
}

fn ask(name: &str, qtype: RecordType) -> Message {
    Message::from_vec(&exchange(&question(name, qtype)).expect("an answer")).unwrap()
}

/// How often each answer came first, of so many.
fn firsts(name: &str, qtype: RecordType, count: usize) -> BTreeMap<String, usize> {
    (0..count).fold(BTreeMap::new(), |mut firsts, _| {
        *firsts.entry(ask(name, qtype).answers[0].data.to_string()).or_default() += 1;
        firsts
    })
}

fn last(name: &str) -> String {
    ask(name, A).answers.last().unwrap().data.to_string()
}

#[test]
fn everything_takes_turns_unless_it_is_told_otherwise() {
    in_namespace(|| {
        let (running, _world) = served(config());
        let names = [(DB, A), ("big.example.org.", A), ("mail.example.org.", MX)];
        for (name, qtype) in names {
            assert!(firsts(name, qtype, 40).len() > 1, "{name}");
        }
        // What a Corefile without the directive says.
        let base = as_served(config());
        let text = ".:53 {\n kubernetes cluster.local\n forward . 127.0.0.53\n cache\n";
        for (more, is_shuffled) in
            [("", false), (" loadbalance\n", true), (" loadbalance round_robin\n", true)]
        {
            let corefile = Corefile::read(&format!("{text}{more}}}"), base.clone()).unwrap();
            running.configurator.apply(&corefile.config, &snapshot(super::cluster())).unwrap();
            for (name, qtype) in names {
                assert_eq!(firsts(name, qtype, 40).len() > 1, is_shuffled, "{more:?} {name}");
            }
        }
    });
}

#[test]
fn addresses_come_first_as_often_as_they_weigh() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &file).unwrap();
        };
        let policy =
            OrderPolicy::Weighted(WeightFile { file: file.clone(), reload: Duration::from_millis(20) });
        let (_running, _world) = served(preferring(policy, &[]));
        // Without a file all weigh the same, and from the moment at which it is there, as it says.
        assert_eq!(firsts(DB, A, 60).len(), 2);
        let most = |address: &str| firsts(DB, A, 60).get(address).is_some_and(|count| *count > 54);
        write("DB.default.svc.cluster.local\n10.1.0.8 255\n");
        eventually("most of it at 10.1.0.8", || most("10.1.0.8"));
        write("db.default.svc.cluster.local\n10.1.0.8 nothing\n");
        assert!(most("10.1.0.8"), "a bad file changes nothing");
        write("db.default.svc.cluster.local\n10.1.0.9 255\n\nbig.example.org\n203.0.113.7 255\n");
        eventually("most of it at 10.1.0.9", || most("10.1.0.9"));
        // Others' answers, too, which stay whole and in their order but for the first.
        let answers = ask("www.example.org.", A).answers;
        assert_eq!(answers.len(), 1);
    });
}

#[test]
fn addresses_of_some_networks_go_before_others() {
    in_namespace(|| {
        let (running, _world) = served(preferring(OrderPolicy::AsTheyCome, &["10.1.0.9/32"]));
        assert_eq!(firsts(DB, A, 20), [("10.1.0.9".to_owned(), 20)].into());
        assert_eq!(last(DB), "10.1.0.8");
        // Of many more than fit, too: they are put in order before the answer is cut.
        let many: Vec<String> = (0..200).map(|n| format!("10.2.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let objects = || {
            let more = [headless("default/many"), slice("many-1", "default/many", &["a/TCP/1"], &many)];
            super::cluster().into_iter().chain(more)
        };
        running.publisher.publish(&snapshot(objects()), &Changes::everything());
        let with = |policy, networks: &[&str]| {
            let config = as_served(preferring(policy, networks));
            running.configurator.apply(&config, &snapshot(objects())).unwrap();
        };
        with(OrderPolicy::Turns, &["10.2.0.199/32", "10.2.0.128/25"]);
        let mut seconds = BTreeSet::new();
        for _ in 0..20 {
            let message = ask("many.default.svc.cluster.local.", A);
            let told: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
            assert!(message.metadata.truncation && told.len() > 20, "{}", told.len());
            assert_eq!(told[0], "10.2.0.199");
            let second: u8 = told[1].rsplit('.').next().unwrap().parse().unwrap();
            assert!(second >= 128, "{told:?}");
            seconds.insert(second);
        }
        assert!(seconds.len() > 1, "the rest take turns");
        // What comes in addition is put in order with its names.
        with(OrderPolicy::AsTheyCome, &["10.1.0.9/32"]);
        let more = ask(&format!("_sql._tcp.{DB}"), SRV).additionals;
        let first = format!("{} {}", more[0].name, more[0].data);
        assert_eq!(first, format!("db-1.{DB} 10.1.0.9"));
    });
}

#[test]
fn a_corefile_says_in_which_order() {
    let read = |text: &str| {
        let text = format!(". {{\n loadbalance {text}\n}}\nother.test {{\n}}");
        let rules = Corefile::read(&text, DnsConfig::default()).unwrap().config.rules;
        assert_eq!(rules[1].order, Order::AS_IT_COMES, "each block says it for itself");
        rules[0].order.clone()
    };
    assert_eq!(read(""), Order::default());
    let weights = |seconds| {
        let (file, reload) = (Path::new("/w").to_owned(), Duration::from_secs(seconds));
        OrderPolicy::Weighted(WeightFile { file, reload })
    };
    assert_eq!(read("weighted w\n root /").policy, weights(30));
    assert_eq!(read("weighted /w"), Order { policy: weights(30), prefer: Vec::new() });
    let both = "weighted /w {\n  reload 10s\n  prefer 10.0.0.0/8 fd00::/8\n  prefer 192.0.2.0/24\n }";
    let Order { policy, prefer } = read(both);
    assert_eq!((policy, prefer.len()), (weights(10), 3));
}
