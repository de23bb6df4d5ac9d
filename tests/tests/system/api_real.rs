//! The way to a real API server: the variable, the forwarder, server-side apply. Here it leads to a test API server that
//! lets its administrator write, so that the way is known to be good where there is no real one.

use serde_json::json;
use sluice_tests::apiserver::{ApiServer, Credentials, RealServer};
use sluice_tests::cluster::Options;
use sluice_tests::{Cluster, Error, Result, Testbed};

use crate::api::{Site, options, services_names_and_their_changes};

const ADMINISTRATOR: &str = "administrator";

fn other_server(bed: &Testbed) -> Result<(ApiServer, std::path::PathBuf)> {
    let server = ApiServer::local()?;
    server.behave(|behaviour| _ = behaviour.administrators.insert(ADMINISTRATOR.to_owned()));
    let kubeconfig = bed.folder().join("admin");
    server.kubeconfig(&kubeconfig, 0, &Credentials::Token(ADMINISTRATOR.to_owned()))?;
    Ok((server, kubeconfig))
}

#[test]
fn the_same_tests_run_against_another_server() -> Result<()> {
    let bed = Testbed::new()?;
    let (server, kubeconfig) = other_server(&bed)?;
    let real = Some(kubeconfig);
    let cluster = Cluster::without_agents(&bed, &Options { real, ..options() })?;
    let site = Site::on(cluster)?;
    assert!(!server.watching().is_empty(), "the nodes watch the other server");
    services_names_and_their_changes(&site)?;
    drop(site);
    // The tests leave nothing behind.
    for kind in ["nodes", "services", "endpointslices"] {
        assert_eq!(server.objects(kind).len(), 0, "{kind}");
    }
    Ok(())
}

#[test]
fn a_server_with_nodes_of_its_own_is_no_place_for_tests() -> Result<()> {
    let bed = Testbed::new()?;
    let (server, kubeconfig) = other_server(&bed)?;
    server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker-1" } }))?;
    let refused = RealServer::by(&kubeconfig).map(drop).map_err(|error: Error| error.to_string());
    assert!(refused.as_ref().is_err_and(|error| error.contains("worker-1")), "{refused:?}");
    Ok(())
}
