//! Services of one family and of both, and those that change (row 32 of the behaviour table).

use sluice_tests::bed::Host;
use sluice_tests::cluster::service;
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, url};

on_both_paths!(a_service_gains_and_loses_a_family_and_keeps_the_other);

/// The service `web` in these families.
fn web(families: &[&str]) -> String {
    let addresses: Vec<_> =
        families.iter().map(|family| if *family == "IPv4" { WEB[0] } else { WEB[1] }).collect();
    let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    let quoted: Vec<_> = addresses.iter().map(|address| format!("'{address}'")).collect();
    let spec = format!(
        "type: NodePort\nclusterIP: '{}'\nclusterIPs: [{}]\nipFamilies: [{}]\nipFamilyPolicy: {policy}\n\
         ports: [{{name: http, port: 80, nodePort: {}}}]\n",
        addresses[0],
        quoted.join(", "),
        families.join(", "),
        NODE_PORTS[0]
    );
    service("web", &spec)
}

/// Waits until an answer comes, or none.
fn wait_answer(site: &Site, host: &Host, url: &str, wanted: bool) -> Result<()> {
    let what = if wanted { "an answer" } else { "no answer" };
    wait_for(&format!("{what} from {url} at {}", host.name()), LIMIT, || {
        let output = host.run("curl", &["-sS", "--noproxy", "*", "-m", "1", url])?;
        if (output.code == Some(0)) == wanted {
            Ok(Some(()))
        } else {
            Err(Error::answer(url, format!("{output:?}")))
        }
    })
    .map_err(|error| site.with_logs(&error))
}

fn wait_families(site: &Site, wanted: [bool; 2]) -> Result<()> {
    for (family, wanted) in wanted.into_iter().enumerate() {
        let node =
            format!("http://{}:{}/", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
        wait_answer(site, site.client(), &url(WEB[family]), wanted)?;
        wait_answer(site, site.cluster.node(1).host(), &url(WEB[family]), wanted)?;
        wait_answer(site, site.cluster.outside(), &node, wanted)?;
    }
    Ok(())
}

fn a_service_gains_and_loses_a_family_and_keeps_the_other(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for (kept, other) in [(0, "IPv6"), (1, "IPv4")] {
        let own = if kept == 0 { "IPv4" } else { "IPv6" };
        let alone = [kept == 0, kept == 1];
        site.cluster.apply("web.yaml", &web(&[own]))?;
        wait_families(&site, alone)?;
        // A download in the family that stays sees nothing of what becomes of the other.
        let mut download = site.download(WEB[kept], "8M")?;
        site.cluster.apply("web.yaml", &web(&[own, other]))?;
        wait_families(&site, [true, true])?;
        site.cluster.apply("web.yaml", &web(&[own]))?;
        wait_families(&site, alone)?;
        assert_eq!(download.wait(LIMIT)?, Some(0), "{}", download.log());
    }
    Ok(())
}
