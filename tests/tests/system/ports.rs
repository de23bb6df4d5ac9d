//! A service's ports come and go, and its clients' habits end (rows 4 and 25 of the behaviour table).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluice_tests::bed::Servers;
use sluice_tests::cluster::{Options, service};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, spread, url, web_service};

on_both_paths!(
    ports_are_served_from_when_they_are_added_until_they_are_removed,
    a_named_port_is_another_number_on_each_endpoint,
    a_client_with_affinity_is_free_again_after_its_time,
);

/// The service `web` with these ports alone.
fn web(ports: &str) -> String {
    let [ip4, ip6] = WEB;
    let spec = format!(
        "type: NodePort\nclusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports: {ports}\n"
    );
    service("web", &spec)
}

/// Waits until curl ends like this: 0 is an answer, 7 a refusal.
fn wait_code(site: &Site, url: &str, wanted: i32) -> Result<()> {
    wait_for(&format!("{wanted} from {url}"), LIMIT, || {
        let output = site.client().run("curl", &["-sS", "--noproxy", "*", "-m", "1", url])?;
        if output.code == Some(wanted) {
            Ok(Some(()))
        } else {
            Err(Error::answer(url, format!("{output:?}")))
        }
    })
    .map_err(|error| site.with_logs(&error))
}

fn ports_are_served_from_when_they_are_added_until_they_are_removed(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let one = "{name: one, port: 81, targetPort: 80, nodePort: 30181}";
    let two = "{name: two, port: 82, targetPort: 80, nodePort: 30182}";
    let states =
        [(format!("[{one}]"), [0, 7]), (format!("[{one}, {two}]"), [0, 0]), (format!("[{two}]"), [7, 0])];
    for (ports, codes) in states {
        site.cluster.apply("web.yaml", &web(&ports))?;
        for (family, address) in WEB.into_iter().enumerate() {
            let node = bracketed(&site.cluster.node(1).addresses()[family]);
            for (port, code) in [81, 82].into_iter().zip(codes) {
                wait_code(&site, &format!("http://{}:{port}/", bracketed(address)), code)?;
                wait_code(&site, &format!("http://{node}:{}/", 30100 + port), code)?;
            }
        }
    }
    Ok(())
}

fn a_named_port_is_another_number_on_each_endpoint(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let mut servers = Servers::new();
    for (pod, port) in [("web-0", 8081), ("web-1", 8082)] {
        servers.http(site.pod(pod).host(), port, &format!("{pod} at {port}"))?;
        let node = if pod == "web-0" { 1 } else { 2 };
        let container = format!("ports: [{{name: named, containerPort: {port}}}]");
        let text = sluice_tests::cluster::Workload {
            name: pod,
            node: site.cluster.node(node).name(),
            app: "web",
            spec: "",
        };
        let text = text
            .manifest()
            .replace("image: example/web\n", &format!("image: example/web\n    {container}\n"));
        site.cluster.apply(&format!("{pod}.yaml"), &text)?;
    }
    site.cluster.apply(
        "web.yaml",
        &web(&format!("[{{name: http, port: 80, targetPort: named, nodePort: {}}}]", NODE_PORTS[0])),
    )?;
    for address in WEB {
        wait_for("both numbers", LIMIT, || {
            let met: BTreeSet<String> = spread(site.client(), &url(address), 20)?.into_keys().collect();
            let wanted = ["web-0 at 8081", "web-1 at 8082"].map(str::to_owned).into();
            if met == wanted { Ok(Some(())) } else { Err(Error::answer(address, format!("{met:?}"))) }
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}

fn a_client_with_affinity_is_free_again_after_its_time(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1), ("web-1", 2), ("web-2", 2), ("web-3", 1)])?;
    let seconds = 2;
    let affinity = format!(
        "sessionAffinity: ClientIP\nsessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}\n"
    );
    site.cluster.apply("web.yaml", &web_service(&affinity))?;
    for (family, address) in WEB.into_iter().enumerate() {
        let node =
            format!("http://{}:{}/", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
        for target in [url(address), node] {
            let client = site.client();
            let alone = || -> Result<Option<String>> {
                let met = spread(client, &target, 8)?;
                Ok(if met.len() == 1 { met.into_keys().next() } else { None })
            };
            let first = wait_for("one endpoint", LIMIT, alone).map_err(|error| site.with_logs(&error))?;
            // Used more often than it would be forgotten, the habit lasts.
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(2 * seconds + 1) {
                assert_eq!(alone()?, Some(first.clone()), "{target}");
                std::thread::sleep(Duration::from_millis(400));
            }
            // Left alone for longer, it is another choice each time: the same out of four ten times running is an
            // accident of one in a million.
            let mut met = BTreeSet::from([first]);
            for _ in 0..10 {
                std::thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(1_100));
                met.extend(spread(client, &target, 1)?.into_keys());
                if met.len() > 1 {
                    break;
                }
            }
            assert!(met.len() > 1, "{target}: {met:?}");
        }
    }
    Ok(())
}
