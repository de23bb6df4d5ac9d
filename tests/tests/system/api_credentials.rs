//! What nodes show the API server, and what they may see there.

use sluice_tests::apiserver::Blow;
use sluice_tests::cluster::{Options, service, slices};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::api::{RECOVERY, Site, WEB, options, spec};

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
fn a_client_certificate_is_as_good_as_a_token() -> Result<()> {
    let site = Site::new()?;
    let identity = site.api().client_certificate("system:node:node1")?;
    site.api().behave(|behaviour| behaviour.tokens.clear());
    let credentials = sluice_tests::apiserver::Credentials::Certificate(identity);
    site.api().kubeconfig(site.cluster.api().kubeconfig(), 0, &credentials)?;
    let node = site.cluster.node(1);
    node.kill_agent()?;
    node.start_agent()?;
    node.wait_ready_within(RECOVERY)?;
    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)
}

#[test]
fn in_a_pod_the_service_account_is_enough_and_its_token_may_be_rotated() -> Result<()> {
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let cluster = Cluster::without_agents(&Testbed::new()?, &Options { nodes: 1, ..options() })?;
    let (node, server) = (cluster.node(1), cluster.api().server());
    // What a kubelet projects into a pod, and the environment that it gives its containers.
    let folder = cluster.bed().subfolder("account")?;
    let put = |file: &str, text: &str| {
        let (beside, path) = (folder.join("new"), folder.join(file));
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(Error::file("write", path))
    };
    let authority = cluster.api().kubeconfig().with_extension("ca");
    put("ca.crt", &std::fs::read_to_string(&authority).map_err(Error::file("read", &authority))?)?;
    put("token", sluice_tests::apiserver::TOKEN)?;
    node.reconfigure(|text| {
        text.lines().filter(|line| !line.starts_with("kubeconfig:")).map(|line| format!("{line}\n")).collect()
    })?;
    let script = format!(
        "mount -t tmpfs none /var && mkdir -p {ACCOUNT} && mount --bind {} {ACCOUNT} && exec \"$@\"",
        folder.display()
    );
    let [host, _] = sluice_tests::cluster::API;
    let (host, port) = (format!("KUBERNETES_SERVICE_HOST={host}"), "KUBERNETES_SERVICE_PORT=6443");
    node.start_agent_by(&["env", &host, port, "unshare", "--mount", "sh", "-c", &script, "sh"])?;
    node.wait_ready_within(RECOVERY)?;

    server.behave(|behaviour| {
        behaviour.client_certificates = false;
        behaviour.tokens = ["second-token".to_owned()].into();
    });
    put("token", "second-token")?;
    server.hit("*", Blow::Cut);
    let web = service("web", &spec(WEB)) + &slices("web", "[{name: http, port: 80}]", &[]);
    cluster.apply("web.yaml", &web)?;
    wait_for("the service's name", RECOVERY, || {
        let name =
            node.host().run("dig", &["+short", "+time=1", "@10.96.0.10", "web.default.svc.cluster.local"])?;
        Ok((name.stdout.trim() == WEB[0]).then_some(()))
    })
    .map_err(|error| Error::answer(error.to_string(), node.agent_log()))
}

#[test]
fn rights_that_are_missing_are_named() -> Result<()> {
    let cluster = Cluster::without_agents(&Testbed::new()?, &Options { nodes: 1, ..options() })?;
    let (node, server) = (cluster.node(1), cluster.api().server());
    server.refuse("endpointslices", 403, None, 3);
    server.refuse("namespaces", 403, None, usize::MAX);
    node.start_agent()?;
    // What can be done without is; what cannot is waited for.
    node.wait_ready_within(RECOVERY)?;
    let log = node.agent_log();
    for said in [
        "the right to list and watch endpointslices of API group \"discovery.k8s.io\" in all namespaces is missing",
        "the right to list and watch namespaces of API group \"\" in all namespaces is missing",
        "names in namespaces without services do not exist",
    ] {
        assert!(log.contains(said), "{said} is not in\n{log}");
    }
    Ok(())
}
