//! Entries for fuzzing: what of the server reads foreign bytes, each as a function that must not panic whatever it is
//! given. What runs them is in `fuzz/`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, OnceLock},
};

use hickory_proto::op::Message;
use sluice_model::{
    Changes, Endpoint, EndpointPort, EndpointSlice, Hints, IpFamily, Namespace, Object, ObjectName, Protocol,
    Service, ServicePort, Snapshot, TargetPort,
};

use crate::{
    AnswerChange, Change, Corefile, Dns64, DnsConfig, EdnsOption, External, Hosts, LogRule, NameMatch,
    NamePattern, OptionChange, OptionWhen, Order, Rewrite, Rules, Saved, Server, Template, Upstreams,
    files::{self, FileZone},
    handler::{Client, Handler, Outcome, Transport},
    master,
    message::{Answer, Question},
    metrics::Metrics,
    name::WireName,
    query::Query,
    reply::Reply,
    rules::RuleSet,
    wire::Rcode,
};

/// A query, over UDP and over TCP: what is answered at once is a message that belongs to it and fits.
pub fn query(data: &[u8]) {
    static HANDLER: OnceLock<Option<Arc<Handler>>> = OnceLock::new();
    let Some(handler) = HANDLER.get_or_init(server) else { return };
    for transport in [Transport::Udp, Transport::Tcp] {
        let client = Client { transport, address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 4096 };
        let mut answer = Vec::new();
        let (outcome, _) = handler.answer(data, client, 7, &mut answer);
        if !matches!(outcome, Outcome::Answered(_) | Outcome::Refresh(_)) {
            continue;
        }
        assert!(data[2] & 0x80 == 0, "an answer is not answered");
        assert!(answer[..2] == data[..2] && answer[2] & 0x80 != 0, "it is an answer to this query");
        let limit = Query::read(data).map_or(512, |query| query.udp_limit(1232));
        assert!(transport == Transport::Tcp || answer.len() <= limit, "{} bytes", answer.len());
        assert!(Message::from_vec(&answer).is_ok(), "it can be read");
    }
}

/// What an upstream says: two bytes say how long the question is, which stands before the answer.
pub fn answer(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((asked, said)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { return };
    let Ok(query) = Query::read(asked) else { return };
    let question = Question::of(&query);
    let id = said.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let reading = Answer::read(said.to_vec(), id, &question, query.edns.is_some());
    let crate::message::Reading::Answer(answer) = reading else { return };
    let _ = (answer.min_ttl(), answer.negative_ttl(), answer.is_denial());
    for limit in [512, 65_535] {
        let mut out = Vec::new();
        answer.write(&query, Some(3), limit, 1232, &mut out);
        // What an upstream says of a record's data is the client's business.
        assert!(out.len() <= limit && out[..2] == asked[..2] && out[2] & 0x80 != 0);
    }
}

/// A Corefile, which imports itself where it imports a file.
pub fn corefile(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let itself = |name: &str| Ok(vec![(name.to_owned(), text.clone().into_owned())]);
    let read = Corefile::bundle(&text, itself).and_then(|text| Corefile::read(&text, DnsConfig::default()));
    match read {
        // What a file says of itself is made up of other lines.
        Err(error) if error.file.is_none() => {
            assert!((1..=text.lines().count().max(1)).contains(&error.line), "{error}");
        }
        Err(_) => {}
        // Expressions and names may be none; that must not be more than an error. Files are left alone.
        Ok(corefile) => {
            let rules = corefile.config.rules.into_iter().map(|rules| Rules {
                hosts: None,
                files: Vec::new(),
                dnssec: None,
                order: Order::default(),
                ..rules
            });
            if let Ok(metrics) = Metrics::new() {
                drop(RuleSet::new(&rules.collect::<Vec<_>>(), &metrics.rules));
            }
        }
    }
}

/// A master file, which includes itself where it includes a file: what is read can be served and told as a whole.
pub fn master(data: &[u8]) {
    let (Some(origin), file) = (WireName::parse("example.org"), Path::new("db")) else { return };
    let mut loads = 0;
    let mut load = |_: &Path| {
        loads += 1;
        if loads > 10 { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(data.to_vec()) }
    };
    let records = match master::read(data, file, &origin, &mut load) {
        Ok(records) => records,
        Err(error) => {
            let lines = data.split(|byte| *byte == b'\n').count();
            return assert!((1..=lines).contains(&error.line), "{error}");
        }
    };
    let names: Vec<_> = records.iter().map(|record| (record.name.clone(), record.rtype)).collect();
    let Ok(zone) = FileZone::new(&origin, file, records) else { return };
    assert!(files::records(&zone).len() >= 2);
    for (name, rtype) in names.into_iter().take(20) {
        let question =
            [&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], name.as_bytes(), &rtype.to_be_bytes(), &[0, 1]].concat();
        let Ok(query) = Query::read(&question) else { continue };
        let mut out = Vec::new();
        let mut reply = Reply::new(&query, &mut out, 512, 1232, 0);
        if query.name.labels_before(origin.as_bytes()).is_some() {
            zone.write(&query, 0, &mut reply);
        }
        reply.finish(Rcode::NoError);
        assert!(out.len() <= 512);
    }
}

/// A zone that was kept.
pub fn saved(data: &[u8]) {
    let Ok(saved) = Saved::read(data) else { return };
    assert!(Saved::read(saved.write().as_bytes()).is_ok_and(|again| again == saved));
    let config = DnsConfig { upstreams: Upstreams::None, ..DnsConfig::default() };
    let Ok(server) = Server::bind(config) else { return };
    server.publisher().restore(&saved);
}

/// A server without sockets that has some of everything.
fn server() -> Option<Arc<Handler>> {
    let on = |matches, text: &str| NamePattern { matches, text: text.to_owned() };
    let rewrite = |change| Rewrite { change, and_on: false };
    let name = |matches, from: &str, to: &str, answers| {
        rewrite(Change::Name { on: on(matches, from), to: to.to_owned(), answers })
    };
    let back = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let svc = "web.default.svc.cluster.local.";
    let (from, to) = back(r"(.*)\.default\.svc\.cluster\.local\.", "{1}.owner.test.");
    let owner = AnswerChange::Owner { from: from.clone(), to };
    let value = AnswerChange::Value { from, to: "{1}.value.test.".to_owned() };
    let and_on = |change| Rewrite { change, and_on: true };
    let rules = Rules {
        rewrites: vec![
            and_on(Change::Class { from: 3, to: 1 }),
            and_on(Change::Type { from: 99, to: 33 }),
            and_on(Change::Ttl { on: on(NameMatch::Substring, "test"), least: 7, most: 9 }),
            and_on(Change::Rcode { on: on(NameMatch::Suffix, ".test."), from: 3, to: 0 }),
            and_on(Change::Alias { on: on(NameMatch::Prefix, "www."), to: svc.to_owned() }),
            and_on(Change::Option(OptionChange {
                when: OptionWhen::Replace,
                option: EdnsOption::Subnet { v4: 24, v6: 56 },
            })),
            name(NameMatch::Suffix, ".suffix.test.", ".default.svc.cluster.local.", vec![AnswerChange::Auto]),
            name(NameMatch::Prefix, "db-", "", vec![AnswerChange::Auto, value.clone()]),
            name(
                NameMatch::Regex,
                r"^(.*)\.regex\.test\.$",
                "{1}.default.svc.cluster.local.",
                vec![owner, value],
            ),
            name(NameMatch::Exact, "exact.test.", svc, Vec::new()),
        ],
        log: vec![LogRule::default()],
        templates: vec![Template {
            zones: vec!["template.test.".to_owned()],
            answer: vec!["{{ .Name }} 60 IN A 192.0.2.1".to_owned()],
            ..Template::default()
        }],
        hosts: Some(Hosts {
            lines: vec!["192.0.2.7 gate.test *.wild.test".to_owned()],
            fallthrough: Some(Vec::new()),
            ..Hosts::default()
        }),
        dns64: Some(Dns64 { allow_ipv4: true, ..Dns64::default() }),
        ..Rules::new(".")
    };
    let networks = vec!["10.0.0.0/8".parse().ok()?];
    let zones = vec!["outside.test".to_owned(), "ip6.arpa".to_owned()];
    let external = Some(External { zones, headless: true, ..External::default() });
    let config = DnsConfig {
        rules: vec![rules],
        networks,
        external,
        upstreams: Upstreams::None,
        ..DnsConfig::default()
    };
    let server = Server::bind(config).ok()?;
    server.publisher().publish(&cluster(), &Changes::everything());
    Some(server.configurator().handler())
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut add = |object| snapshot.apply(object, &mut Changes::default());
    add(Object::Namespace(Namespace { name: "default".into(), labels: Default::default() }));
    let port = ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        target_port: TargetPort::Number(8080),
        node_port: None,
    };
    let web = Service::new(ObjectName::new("default", "web"));
    let cluster_ips = vec![IpAddr::from([10, 96, 0, 20])];
    add(Object::Service(Service { cluster_ips, ports: vec![port], ..web }));
    let db = ObjectName::new("default", "db");
    add(Object::Service(Service { headless: true, ..Service::new(db.clone()) }));
    let endpoint = |n: u8| Endpoint {
        addresses: vec![IpAddr::from([10, 1, 0, n])],
        ready: true,
        serving: true,
        terminating: false,
        hostname: Some(format!("db-{n}").into()),
        node: None,
        zone: None,
        hints: Hints::default(),
        pod: None,
    };
    add(Object::EndpointSlice(EndpointSlice {
        name: ObjectName::new("default", "db-1"),
        service: Some(db),
        imported: None,
        headless: false,
        family: IpFamily::V4,
        ports: vec![EndpointPort { name: "sql".into(), protocol: Protocol::Tcp, port: 5432 }],
        endpoints: (0..200).map(endpoint).collect(),
        last_change: None,
    }));
    snapshot
}
