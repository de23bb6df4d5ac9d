//! UDP flows outlive their backend: the next datagram goes to one that is there.

use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB, bracketed};

#[test]
fn a_flow_moves_on_when_its_backend_goes() -> Result<()> {
    for fast_path in [false, true] {
        let site = Site::usual(fast_path)?;
        for address in WEB {
            let ask = || {
                let target = format!("UDP:{}:70,sourceport=5555,reuseaddr", bracketed(address));
                let answer =
                    site.client().succeed("sh", &["-c", &format!("echo x | socat -T 2 -t 2 - {target}")])?;
                Ok::<_, Error>(answer.trim().to_owned())
            };
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
