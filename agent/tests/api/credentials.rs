//! Credentials that change, and files that hold none.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use prometheus::core::Collector as _;
use sluice_agent::{
    api::{Shared, Timing},
    config::ApiSettings,
};

use super::{
    Source, impatient,
    server::{Answer, Server, end_of_list, event, node, status, wait},
};

/// Refuses the token of old, changes it, and sees that the next one is asked with; `first_wait` before asking again.
fn a_new_token_is_taken(server: &Server, kubeconfig: PathBuf, token: &Path, first_wait: Duration) {
    server.expect(Answer::Body(401, status(401, "Unauthorized")));
    let settings = ApiSettings { kubeconfig: Some(kubeconfig), ..ApiSettings::default() };
    let timing = Timing { first_wait, ..impatient() };
    let mut source = Source::with(settings, timing);
    assert_eq!(server.wait_for(1).token.as_deref(), Some("Bearer old"));
    std::fs::write(token, "new").unwrap();
    let watches: Vec<_> = (0..20)
        .map(|_| server.watch(&[event("ADDED", &node("a", "10.0.1.0/24", 1)), end_of_list("Node", "3")]))
        .collect();
    source.until(&["a 10.0.1.0/24"]);
    assert_eq!(server.asked().last().unwrap().token.as_deref(), Some("Bearer new"));
    drop(watches);
}

/// A kubeconfig for `server` that finds its token in the file `token` beside it.
fn with_token_file(folder: &Path, server: &Server) -> (PathBuf, PathBuf) {
    let (token, kubeconfig) = (folder.join("token"), folder.join("kubeconfig"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: '{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: [{{name: u, user: {{tokenFile: token}}}}]\n",
        server.address
    );
    std::fs::write(&kubeconfig, text).unwrap();
    (token, kubeconfig)
}

#[test]
fn a_token_that_was_rotated_is_read_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start());
    let (token, kubeconfig) = with_token_file(folder.path(), &server);
    std::fs::write(&token, "old\n").unwrap();
    a_new_token_is_taken(&server, kubeconfig, &token, Duration::from_secs(2));
}

#[test]
fn nobody_is_asked_before_there_is_a_token() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start());
    let (token, kubeconfig) = with_token_file(folder.path(), &server);
    std::fs::write(&token, "\n").unwrap();
    let _watch = server.watch(&[event("ADDED", &node("a", "10.0.1.0/24", 1)), end_of_list("Node", "3")]);
    let settings = ApiSettings { kubeconfig: Some(kubeconfig), ..ApiSettings::default() };
    let mut source = Source::with(settings, impatient());
    wait("failures for want of a token", || {
        let told = format!("{:?}", Shared(source.contacts.clone()).collect());
        told.contains(r#""access""#).then_some(())
    });
    assert!(server.asked().is_empty(), "as nobody: {:?}", server.asked());
    std::fs::write(&token, "good\n").unwrap();
    source.until(&["a 10.0.1.0/24"]);
    assert!(server.asked().iter().all(|asked| asked.token.as_deref() == Some("Bearer good")));
}

#[test]
fn a_command_gives_credentials_and_is_run_again_when_they_are_refused() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (kubeconfig, token) = (folder.path().join("kubeconfig"), folder.path().join("token"));
    std::fs::write(&token, "old").unwrap();
    let command = format!(
        r#"printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s"}}}}' "$(cat {})""#,
        token.display()
    );
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": server.address } }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
        "users": [{ "name": "u", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", command],
            "interactiveMode": "Never",
        } } }],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    a_new_token_is_taken(&server, kubeconfig, &token, Duration::from_secs(1));
}
