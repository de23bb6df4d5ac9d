//! A pod that reaches itself through its own service.

use sluice_tests::Result;
use sluice_tests::cluster::Options;

use crate::paths::on_both_paths;
use crate::site::{NODE_PORTS, Site, WEB, bracketed, url};

on_both_paths!(a_pod_reaches_itself_through_its_service);

fn a_pod_reaches_itself_through_its_service(fast_path: bool) -> Result<()> {
    let options = Options { nodes: 1, fast_path, ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let pod = site.pod("web-0").host();
    for (family, address) in WEB.into_iter().enumerate() {
        site.wait_spread(pod, &url(address), 1)?;
        assert_eq!(pod.ask_udp(&format!("{}:70", bracketed(address)), 0)?, "web-0");
        let node = bracketed(&site.cluster.node(1).addresses()[family]);
        assert_eq!(pod.curl(&format!("http://{node}:{}/", NODE_PORTS[0]))?, "web-0\n");
    }
    Ok(())
}
