//! ClusterIPs: from pods and from the node, TCP and UDP, both families, per packet and by the fast path.

use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, WEB, bracketed, spread, url, web_service};

on_both_paths!(
    connections_spread_over_all_backends,
    pods_keep_their_address,
    datagrams_reach_a_backend_and_come_back,
    large_answers_arrive_whole,
    a_service_without_endpoints_refuses_and_counts,
    a_service_that_goes_takes_its_address_along,
);

fn connections_spread_over_all_backends(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for address in WEB {
        for host in [site.client(), site.cluster.node(1).host(), site.cluster.node(2).host()] {
            let spread = spread(host, &url(address), 100)?;
            assert_eq!(spread.len(), 2, "{} to {address}: {spread:?}", host.name());
            // A fair choice gives fewer than 20 of 100 once in ten thousand million times.
            assert!(spread.values().all(|&count| count >= 20), "{} to {address}: {spread:?}", host.name());
        }
    }
    Ok(())
}

fn pods_keep_their_address(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let own = site.pod("client").addresses();
    for (family, address) in WEB.into_iter().enumerate() {
        let target = format!("{}:90", bracketed(address));
        for protocol in ["TCP", "UDP"] {
            // Both backends, on this node and on the other, are asked in a few tries.
            for _ in 0..8 {
                assert_eq!(
                    site.client().seen_as(protocol, &target)?,
                    own[family].to_string(),
                    "{protocol} {target}"
                );
            }
        }
    }
    Ok(())
}

fn datagrams_reach_a_backend_and_come_back(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for address in WEB {
        for host in [site.client(), site.cluster.node(2).host()] {
            let answer = host.ask_udp(&format!("{}:70", bracketed(address)), 0)?;
            assert!(answer.starts_with("web-"), "{} to {address}: {answer}", host.name());
        }
    }
    Ok(())
}

fn large_answers_arrive_whole(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for address in WEB {
        let words = ["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}"];
        let large = format!("{}large", url(address));
        let size = site.client().succeed("curl", &[&words[..], &[&large]].concat())?;
        assert_eq!(size, sluice_tests::bed::Servers::LARGE.to_string(), "{address}");
    }
    Ok(())
}

fn a_service_without_endpoints_refuses_and_counts(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for pod in ["web-0", "web-1"] {
        site.cluster.withdraw(&format!("{pod}.yaml"))?;
    }
    let node = site.cluster.node(1).host();
    for address in WEB {
        for host in [site.client(), node] {
            wait_for(&format!("{} to be refused by {address}", host.name()), LIMIT, || {
                let output = host.run("curl", &["-sS", "-m", "2", &url(address)])?;
                // 7: the connection was refused, at once and not by a time-out, which is 28.
                match output.code {
                    Some(7) => Ok(Some(())),
                    code => Err(Error::answer(format!("curl: exit code {code:?}"), output.stderr)),
                }
            })?;
        }
    }
    wait_for("the drops on /metrics", LIMIT, || {
        let text = node.curl("http://127.0.0.1:10249/metrics")?;
        let counter = "sluice_dropped_packets_total{reason=\"no_endpoints\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(counter)?.parse::<f64>().ok());
        Ok(count.is_some_and(|count| count >= 4.0).then_some(()))
    })
}

fn a_service_that_goes_takes_its_address_along(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.withdraw("web.yaml")?;
    wait_for("the service to be gone", LIMIT, || {
        let output = site.client().run("curl", &["-sS", "-m", "1", &url(WEB[0])])?;
        Ok((output.code != Some(0)).then_some(()))
    })?;
    site.cluster.apply("web.yaml", &web_service(""))?;
    site.wait_spread(site.client(), &url(WEB[0]), 2)
}
