//! UDP flows outlive their backend: the next datagram goes to one that is there.

use sluice_tests::{Result, wait_for};

use crate::site::{LIMIT, Site, WEB, bracketed};

#[test]
fn a_flow_moves_on_when_its_backend_goes() -> Result<()> {
    for fast_path in [false, true] {
        let site = Site::usual(fast_path)?;
        for address in WEB {
            let target = format!("{}:70", bracketed(address));
            let ask = || site.client().ask_udp(&target, 5555);
            let first = ask()?;
            assert_eq!(ask()?, first, "a flow stays with its backend");
            let manifest = site.cluster.manifests().join(format!("{first}.yaml"));
            let text = std::fs::read_to_string(&manifest).unwrap();
            site.cluster.withdraw(&format!("{first}.yaml"))?;
            wait_for("another backend", LIMIT, || {
                let answer = ask()?;
                Ok((!answer.is_empty() && answer != first).then_some(()))
            })?;
            site.cluster.apply(&format!("{first}.yaml"), &text)?;
        }
    }
    Ok(())
}
