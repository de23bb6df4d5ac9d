//! API servers that fail: while they do, a node goes on with what it knows; afterwards it knows what is new.

use std::time::Duration;

use sluice_tests::apiserver::Blow;
use sluice_tests::cluster::Node;
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::api::{RECOVERY, Site, WEB, options};

const SHOP: [&str; 2] = ["10.96.0.30", "fd00:96::30"];
const NEW: [&str; 2] = ["10.96.0.40", "fd00:96::40"];

fn health(node: &Node, path: &str) -> Result<(String, String)> {
    let url = format!("http://127.0.0.1:10256{path}");
    let text = node.host().run("curl", &["-s", "-m", "2", "-w", "\n%{http_code}", &url])?.stdout;
    let (body, code) = text.rsplit_once('\n').unwrap_or_default();
    Ok((code.to_owned(), body.to_owned()))
}

fn metric(node: &Node, prefix: &str) -> Result<f64> {
    let text = node.host().curl("http://127.0.0.1:10249/metrics")?;
    let values =
        text.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(f64::max).ok_or_else(|| Error::answer(prefix, text))
}

#[test]
fn a_server_that_comes_back_with_other_data_changes_nothing_until_its_lists_are_whole() -> Result<()> {
    let site = Site::new()?;
    site.serve("shop", SHOP, &[0])?;
    site.answers(SHOP, 1)?;
    site.api().stop();
    site.cluster.withdraw("shop.yaml")?;
    site.serve("new", NEW, &[1])?;
    // The node has noticed, and says how old its knowledge is.
    let node = site.cluster.node(1);
    wait_for("the node to say how old its knowledge is", RECOVERY, || {
        Ok((metric(node, "sluice_api_last_contact_seconds{")? > 1.0).then_some(()))
    })?;
    assert_eq!(health(node, "/livez")?.0, "200");
    for addresses in [WEB, SHOP] {
        site.answers(addresses, if addresses == WEB { 2 } else { 1 })?;
    }
    // It begins to list, and stops in the middle.
    site.api().behave(|behaviour| _ = behaviour.silent.insert("*".to_owned()));
    site.api().start()?;
    wait_for("the list", RECOVERY, || {
        Ok(site.api().watching().iter().any(|one| one.kind == "services").then_some(()))
    })?;
    site.answers(SHOP, 1)?;
    site.api().behave(|behaviour| behaviour.silent.clear());
    site.answers(NEW, 1)?;
    SHOP.iter().try_for_each(|address| site.is_gone(address))?;
    site.answers(WEB, 2)
}

#[test]
fn a_version_that_is_gone_is_a_reason_to_list_again() -> Result<()> {
    let site = Site::new()?;
    site.serve("shop", SHOP, &[0])?;
    site.answers(SHOP, 1)?;
    // In the midst of streams.
    site.api().hit("*", Blow::Gone);
    site.serve("new", NEW, &[1])?;
    site.answers(NEW, 1)?;
    // At the start of streams: nobody told of the removal.
    site.api().stop();
    site.cluster.withdraw("shop.yaml")?;
    site.api().forget();
    site.api().start()?;
    SHOP.iter().try_for_each(|address| site.is_gone(address))?;
    site.answers(WEB, 2)
}

#[test]
fn streams_that_break_or_end_are_taken_up_where_they_were() -> Result<()> {
    let site = Site::new()?;
    for (blow, pods) in [(Blow::Cut, 1), (Blow::End, 2), (Blow::Cut, 1)] {
        site.api().hit("*", blow);
        site.serve("web", WEB, if pods == 1 { &[0] } else { &[0, 1] })?;
        site.answers(WEB, pods)?;
    }
    Ok(())
}

#[test]
fn a_stream_that_stays_open_and_says_nothing_is_noticed() -> Result<()> {
    let site = Site::new()?;
    site.api().hit("*", Blow::Silence);
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)
}

#[test]
fn a_wire_that_swallows_everything_is_noticed() -> Result<()> {
    let site = Site::new()?;
    let host = site.cluster.api().host();
    site.cluster.lan().sever(host, true)?;
    site.serve("web", WEB, &[1])?;
    let node = site.cluster.node(1);
    wait_for("the silence to be noticed", RECOVERY, || {
        Ok((metric(node, "sluice_api_last_contact_seconds{")? > 5.0).then_some(()))
    })?;
    site.answers(WEB, 2)?;
    site.cluster.lan().sever(host, false)?;
    site.answers(WEB, 1)
}

#[test]
fn a_token_that_is_rotated_is_read_again() -> Result<()> {
    let site = Site::new()?;
    site.api().behave(|behaviour| behaviour.tokens = ["second-token".to_owned()].into());
    // Streams outlive their token; what comes after them does not.
    site.api().hit("*", Blow::End);
    wait_for("the refusal", RECOVERY, || {
        let refused = site.api().seen().iter().any(|seen| seen.code == 401);
        Ok((refused && site.api().watching().is_empty()).then_some(()))
    })?;
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 2)?;
    site.cluster.api().set_token("second-token")?;
    site.answers(WEB, 1)
}

#[test]
fn refusals_are_waited_out() -> Result<()> {
    let site = Site::with(|server| {
        server.refuse("*", 429, Some(1), 3);
        server.refuse("services", 500, None, 2);
        server.refuse("endpointslices", 503, Some(1), 1);
    })?;
    let codes: Vec<u16> =
        site.api().seen().iter().map(|seen| seen.code).filter(|code| *code >= 400).collect();
    for code in [429, 500, 503] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    Ok(())
}

#[test]
fn a_slow_server_is_waited_for() -> Result<()> {
    let site = Site::with(|server| {
        server.behave(|behaviour| {
            behaviour.delay = Duration::from_millis(300);
            behaviour.slowness = Duration::from_millis(200);
        });
    })?;
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)
}

#[test]
fn every_address_of_the_server_has_its_turn() -> Result<()> {
    // Nobody has the first one, nobody listens at the second.
    let servers = "apiServers: ['https://192.168.77.201:6443', 'https://192.168.77.100:6443', 'https://[fd77::c8]:6443']\n";
    let agent = options().agent + servers;
    let options = sluice_tests::cluster::Options { agent, nodes: 1, ..options() };
    let cluster = Cluster::without_agents(&Testbed::new()?, &options)?;
    cluster.node(1).start_agent()?;
    cluster.node(1).wait_ready_within(RECOVERY)?;
    let clients: Vec<_> =
        cluster.api().server().watching().into_iter().map(|one| one.client.to_string()).collect();
    assert!(!clients.is_empty() && clients.iter().all(|client| client == "fd77::1"), "{clients:?}");
    Ok(())
}

#[test]
fn without_a_server_nothing_is_programmed_and_health_says_so() -> Result<()> {
    let cluster = Cluster::without_agents(&Testbed::new()?, &options())?;
    let node = cluster.node(1);
    cluster.api().server().stop();
    node.start_agent()?;
    let (code, body) = wait_for("/healthz", RECOVERY, || {
        let (code, body) = health(node, "/healthz")?;
        Ok((code == "503").then_some((code, body)))
    })?;
    assert_eq!(code, "503", "{body}");
    wait_for("a try", RECOVERY, || Ok(node.agent_log().contains("192.168.77.200").then_some(())))?;
    assert_ne!(health(node, "/healthz")?.0, "200");
    let devices = node.host().ip_json(&["link", "show"])?.to_string();
    assert!(!devices.contains("sluice0"), "{devices}");
    cluster.api().server().start()?;
    node.wait_ready_within(RECOVERY)
}

#[test]
fn an_agent_that_starts_without_a_server_leaves_what_is_there_at_work() -> Result<()> {
    let site = Site::new()?;
    let node = site.cluster.node(1);
    node.kill_agent()?;
    site.api().stop();
    node.start_agent()?;
    wait_for("/healthz", RECOVERY, || Ok((health(node, "/healthz")?.0 == "503").then_some(())))?;
    wait_for("a try", RECOVERY, || {
        Ok((node.agent_log().matches("192.168.77.200").count() > 0).then_some(()))
    })?;
    site.answers(WEB, 2)?;
    site.cluster.withdraw("web.yaml")?;
    site.serve("new", NEW, &[1])?;
    site.answers(WEB, 2)?;
    site.api().start()?;
    node.wait_ready_within(RECOVERY)?;
    site.answers(NEW, 1)?;
    WEB.iter().try_for_each(|address| site.is_gone(address))
}
