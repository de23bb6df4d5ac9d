//! Connections while the services behind them change (rows 26 to 29, 33, 36 and 43 of the behaviour table).

use sluice_tests::bed::Servers;
use sluice_tests::cluster::service;
use sluice_tests::{Result, Running, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, WEB, bracketed, spread, url, web_service};
use crate::slices::{End, State, WEB_PORTS, slices};

on_both_paths!(
    a_download_from_an_endpoint_that_was_removed_ends_well,
    a_datagram_socket_of_before_the_endpoints_is_served_once_they_come,
    a_client_that_has_said_all_still_hears_the_answer,
    two_services_with_one_endpoint_and_one_client_port_are_kept_apart,
    endpoints_on_the_nodes_own_network_are_served,
);

fn a_download_from_an_endpoint_that_was_removed_ends_well(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end("web-0", State::Ready)]))?;
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 1)?;
        let file = site.cluster.bed().folder().join("download");
        let _absent = std::fs::remove_file(&file);
        let shown = file.display().to_string();
        let large = format!("{}large", url(address));
        let mut command = site.client().command("curl")?;
        command.args(["-sS", "-m", "30", "--limit-rate", "30M", "-o", &shown, &large]);
        let mut download = Running::start(&mut command, &site.cluster.bed().folder().join("download.log"))?;
        let size = || file.metadata().map_or(0, |meta| meta.len());
        wait_for("the download", LIMIT, || Ok((size() > 0).then_some(())))?;
        let others = slices("web", &WEB_PORTS, &[site.end("web-1", State::Ready)]);
        site.cluster.apply("slices.yaml", &others)?;
        wait_for("the other endpoint", LIMIT, || {
            Ok(spread(site.client(), &url(address), 4)?.keys().eq(["web-1"]).then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
        assert!(size() < Servers::LARGE, "the download was over before its endpoint went");
        assert_eq!(download.wait(LIMIT)?, Some(0), "{}", download.log());
        assert_eq!(size(), Servers::LARGE);
        site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end("web-0", State::Ready)]))?;
    }
    Ok(())
}

fn a_datagram_socket_of_before_the_endpoints_is_served_once_they_come(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for (pause, address) in WEB.into_iter().enumerate() {
        // Without a service, and then without endpoints; one socket throughout, connected and asking on.
        site.cluster.withdraw("web.yaml")?;
        site.cluster
            .apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end("web-0", State::NotReady)]))?;
        let target = format!("UDP:{}:70,sourceport={}", bracketed(address), 5600 + pause);
        let log = site.cluster.bed().folder().join(format!("asking-{pause}.log"));
        // The error that tells of a refusal ends socat; then it asks again from the same port.
        let script = format!(
            "while true; do for i in 1 2 3 4 5; do echo ask; sleep 0.2; done | socat -T 2 - {target}; done"
        );
        let mut command = site.client().command("sh")?;
        let mut asking = Running::start(command.args(["-c", &script]), &log)?;
        let heard = |what: &str| Ok(asking_log(&log).contains(what).then_some(()));
        site.cluster.apply("web.yaml", &web_service(""))?;
        wait_for("a refusal", LIMIT, || heard("refused")).map_err(|error| site.with_logs(&error))?;
        site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end("web-0", State::Ready)]))?;
        wait_for("an answer", LIMIT, || heard("web-0")).map_err(|error| site.with_logs(&error))?;
        asking.kill()?;
    }
    Ok(())
}

fn asking_log(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn a_client_that_has_said_all_still_hears_the_answer(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let server = site.pod("web-0").host();
    // Reads until the client's side is closed, waits, and answers.
    let slow = "SYSTEM:cat >/dev/null; sleep 2; echo late";
    let _slow =
        server.start("slow", "socat", &["-t", "8", "TCP6-LISTEN:91,fork,reuseaddr,ipv6only=0", slow])?;
    let [ip4, ip6] = ["10.96.0.30", "fd00:96::30"];
    let spec = format!(
        "clusterIPs: [{ip4}, '{ip6}']\nclusterIP: {ip4}\nipFamilyPolicy: RequireDualStack\nports: [{{name: slow, port: 91}}]"
    );
    site.cluster.apply("slow.yaml", &service("slow", &spec))?;
    let ends = [site.end("web-0", State::Ready)];
    site.cluster.apply("slow-slices.yaml", &slices("slow", &[("slow", "TCP", 91)], &ends))?;
    for address in [ip4, ip6] {
        let ask = format!("echo ask | socat -t 8 - TCP:{}:91", bracketed(address));
        wait_for("the late answer", LIMIT, || {
            let heard = site.client().run("sh", &["-c", &ask])?;
            Ok((heard.stdout == "late\n").then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}

fn two_services_with_one_endpoint_and_one_client_port_are_kept_apart(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let twin = ["10.96.0.31", "fd00:96::31"];
    let [ip4, ip6] = twin;
    let spec = format!(
        "clusterIPs: [{ip4}, '{ip6}']\nclusterIP: {ip4}\nipFamilyPolicy: RequireDualStack\n\
         ports: [{{name: udp, port: 70, protocol: UDP}}]"
    );
    let ends = || [site.end("web-0", State::Ready)];
    site.cluster.apply("twin.yaml", &service("twin", &spec))?;
    site.cluster.apply("twin-slices.yaml", &slices("twin", &[("udp", "UDP", 70)], &ends()))?;
    site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &ends()))?;
    for family in 0..2 {
        let targets = [WEB[family], twin[family]].map(|address| format!("{}:70", bracketed(address)));
        wait_for("the second service", LIMIT, || {
            Ok(site.client().ask_udp(&targets[1], 0).is_ok_and(|answer| answer == "web-0").then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
        // Also straight to the endpoint, from the same port.
        let direct = format!("{}:70", site.pod("web-0").url_hosts()[family]);
        for _ in 0..2 {
            for target in [&targets[0], &targets[1], &direct] {
                // An answer from elsewhere than where the question went is an error.
                assert_eq!(site.client().ask_udp(target, 5700)?, "web-0", "{target}");
            }
        }
    }
    Ok(())
}

fn endpoints_on_the_nodes_own_network_are_served(fast_path: bool) -> Result<()> {
    let mut site = Site::usual(fast_path)?;
    let node = site.cluster.node(2);
    site.servers.http(node.host(), 80, "node2")?;
    let end = End { addresses: node.addresses(), node: node.name().to_owned(), state: State::Ready };
    site.cluster.apply("slices.yaml", &slices("web", &[("http", "TCP", 80)], &[end]))?;
    for address in WEB {
        for host in [site.client(), site.cluster.node(1).host(), site.cluster.node(2).host()] {
            wait_for(&format!("node2 behind {address} at {}", host.name()), LIMIT, || {
                Ok(spread(host, &url(address), 4)?.keys().eq(["node2"]).then_some(()))
            })
            .map_err(|error| site.with_logs(&error))?;
        }
    }
    Ok(())
}
