//! Changes while traffic runs, and manifests with mistakes in them.

use std::process::Stdio;

use sluice_tests::cluster::Options;
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB, spread, url};

#[test]
fn backends_come_and_go_and_no_connection_fails() -> Result<()> {
    for fast_path in [false, true] {
        let options = Options { fast_path, ..Options::default() };
        let pods = [("client", 1), ("web-0", 1), ("web-1", 2), ("web-2", 2)];
        let site = Site::new(&options, &pods)?;
        let mut command = site.client().command("curl")?;
        command.args(["-sS", "-m", "60", &format!("{}?[1-3000]", url(WEB[0]))]);
        let load = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut load = load.map_err(Error::file("start", "curl"))?;
        let ended = |load: &mut std::process::Child| load.try_wait().map_err(Error::file("wait for", "curl"));
        let mut changes = 0;
        while ended(&mut load)?.is_none() {
            for pod in ["web-1", "web-2"] {
                let file = format!("{pod}.yaml");
                let text = std::fs::read_to_string(site.cluster.manifests().join(&file)).unwrap();
                site.cluster.withdraw(&file)?;
                site.wait_spread(site.cluster.node(1).host(), &url(WEB[0]), 2)?;
                site.cluster.apply(&file, &text)?;
                site.wait_spread(site.cluster.node(1).host(), &url(WEB[0]), 3)?;
                changes += 2;
            }
        }
        let output = load.wait_with_output().map_err(Error::file("wait for", "curl"))?;
        let answers = String::from_utf8_lossy(&output.stdout);
        assert_eq!(answers.lines().count(), 3000, "{}", String::from_utf8_lossy(&output.stderr));
        assert!(changes >= 4, "only {changes} changes");
    }
    Ok(())
}

#[test]
fn a_mistake_in_one_file_is_reported_and_the_rest_stays_in_force() -> Result<()> {
    let site = Site::usual(true)?;
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: default}\nspec:\n  ports: [{port: seven}]\n";
    site.cluster.apply("broken.yaml", broken)?;
    wait_for("the mistake in the log", LIMIT, || {
        let log = site.cluster.node(1).agent_log();
        let told = log.lines().any(|line| line.contains("broken.yaml") && line.contains("port"));
        Ok(told.then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;
    assert_eq!(spread(site.client(), &url(WEB[0]), 40)?.len(), 2);
    site.cluster.withdraw("web-1.yaml")?;
    site.wait_spread(site.client(), &url(WEB[0]), 1)
}
