//! Part 3: pods, services, names, the node itself and the host outside, over both families.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sluice_tests::{Error, Output, Result, wait_for};

use crate::scene::{ECHO, ECHO_PORT, EXTERNAL, NODE_PORT, SHOP, Scene, WEB};
use crate::transcript::{Transcript, has};

/// How often the ClusterIP is asked for the spread.
const ASKED: usize = 30;

/// Shows the part.
pub(crate) fn show(scene: &Scene, transcript: &mut Transcript) -> Result<()> {
    wait_for_services(scene)?;
    for family in 0..2 {
        transcript.tell(["-- IPv4", "-- IPv6"][family]);
        pods(scene, transcript, family)?;
        services(scene, transcript, family)?;
    }
    transcript.tell("-- names");
    names(scene, transcript)
}

/// The plugin's records reach the agents, and each other's, in a moment; the demo shows what is, not that moment.
fn wait_for_services(scene: &Scene) -> Result<()> {
    let client = scene.pod("client").host();
    wait_for("all addresses of db", Duration::from_secs(5), || {
        let names = client.succeed("dig", &["+short", "+search", "db", "AAAA"])?;
        let more = client.succeed("dig", &["+short", "+search", "db", "A"])?;
        let known = names.lines().count() + more.lines().count();
        if known == 4 { Ok(Some(())) } else { Err(Error::answer("dig db", format!("{names}{more}"))) }
    })?;
    wait_for("all backends of web", Duration::from_secs(5), || {
        let answers = client.curl(&format!("http://{}/?[1-{ASKED}]", WEB[0]))?;
        Ok((spread(&answers).len() == 3).then_some(()))
    })
}

fn pods(scene: &Scene, transcript: &mut Transcript, family: usize) -> Result<()> {
    let client = scene.pod("client").host();
    for (where_, name) in [("the same node", "web-0"), ("the other node", "web-2")] {
        let url = format!("http://{}/", scene.pod(name).url_hosts()[family]);
        transcript.step(
            &format!("a pod on {where_}, {}", version(family)),
            client,
            &curl(&url),
            has(&[name]),
        )?;
    }
    Ok(())
}

fn services(scene: &Scene, transcript: &mut Transcript, family: usize) -> Result<()> {
    let client = scene.pod("client").host();
    let version = version(family);
    let url = format!("http://{}/?[1-{ASKED}]", bracketed(WEB[family]));
    let answers = client.curl(&url)?;
    let spread = spread(&answers);
    transcript.tell(&format!("client$ curl -s '{url}' | sort | uniq -c"));
    for (backend, count) in &spread {
        transcript.tell(&format!("   {count:3} {backend}"));
    }
    let complete = spread.len() == 3 && spread.values().sum::<usize>() == ASKED;
    let outcome = if complete {
        Ok(())
    } else {
        Err(format!("{} answers of {} backends", answers.lines().count(), spread.len()))
    };
    transcript.verdict(&format!("a ClusterIP spreads over three backends, {version}"), outcome);

    let node = scene.cluster.node(1);
    let url = format!("http://{}/", bracketed(WEB[family]));
    transcript.step(
        &format!("a ClusterIP from the node itself, {version}"),
        node.host(),
        &curl(&url),
        has(&["web-"]),
    )?;
    let url = format!("http://{}/", bracketed(SHOP[family]));
    transcript.step(
        &format!("a service with one backend, {version}"),
        client,
        &curl(&url),
        has(&["shop-0"]),
    )?;
    // The shop's only backend is on node1.
    let other = &scene.cluster.node(2).addresses()[family];
    let url = format!("http://{}:{NODE_PORT}/", bracketed(other));
    let outside = scene.cluster.outside();
    transcript.step(
        &format!("a node port from outside, {version}"),
        outside,
        &curl(&url),
        has(&["shop-0"]),
    )?;
    let target = format!("UDP:{}:{ECHO_PORT}", bracketed(ECHO[family]));
    let shell = format!("echo hello | socat -t 0.5 - {target}");
    transcript.step(
        &format!("a service over UDP, {version}"),
        client,
        &["sh", "-c", &shell],
        has(&["echo-0"]),
    )
}

fn names(scene: &Scene, transcript: &mut Transcript) -> Result<()> {
    let client = scene.pod("client").host();
    let addresses =
        |name: &str| scene.pod(name).addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
    transcript.step("curl by short name", client, &curl("http://web"), has(&["web-"]))?;
    let name = "web.default.svc.cluster.local";
    transcript.step("nslookup of a service", client, &["nslookup", "web"], has(&[name, WEB[0], WEB[1]]))?;
    let wanted = [addresses("db-0"), addresses("db-1")].concat();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    transcript.step("nslookup of a headless service", client, &["nslookup", "db"], has(&wanted))?;
    let wanted = addresses("db-0");
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    transcript.step("nslookup of a stateful pod", client, &["nslookup", "db-0.db"], has(&wanted))?;
    let words = ["nslookup", "-type=SRV", "_http._tcp.db.default.svc.cluster.local"];
    let wanted = ["db-0.db.default.svc.cluster.local", "db-1.db.default.svc.cluster.local", " 80 "];
    transcript.step("an SRV record", client, &words, has(&wanted))?;
    transcript.step("a reverse name", client, &["nslookup", WEB[0]], has(&[name]))?;
    transcript.step("a reverse name, IPv6", client, &["dig", "+short", "-x", WEB[1]], has(&[name]))?;
    let of_pod = |address: IpAddr| address.to_string();
    let address = scene.pod("db-1").addresses().first().copied().map(of_pod).unwrap_or_default();
    let wanted = ["db-1.db.default.svc.cluster.local"];
    transcript.step("a stateful pod's reverse name", client, &["nslookup", &address], has(&wanted))?;
    let alias = |output: &Output| has(&[EXTERNAL, "203.0.113.1"])(output);
    transcript.step("an ExternalName", client, &["dig", "+search", "+noall", "+answer", "docs"], alias)?;
    transcript.step(
        "a name outside the cluster",
        client,
        &["nslookup", "www.example.org"],
        has(&["203.0.113.1"]),
    )?;
    let words = ["dig", "+noall", "+comments", "nowhere.default.svc.cluster.local"];
    transcript.step("a name that does not exist", client, &words, has(&["NXDOMAIN"]))
}

fn curl(url: &str) -> [&str; 4] {
    ["curl", "-sS", "-m5", url]
}

fn version(family: usize) -> &'static str {
    ["IPv4", "IPv6"][family]
}

/// An address as a URL has it.
pub(crate) fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// How often each backend answered.
fn spread(answers: &str) -> BTreeMap<&str, usize> {
    answers.lines().fold(BTreeMap::new(), |mut spread, line| {
        *spread.entry(line).or_default() += 1;
        spread
    })
}
