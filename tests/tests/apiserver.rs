//! The test API server, held against what the real one does, with curl as its client.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::apiserver::{ApiServer, Blow, Credentials, TOKEN};
use sluice_tests::{Error, Result, Running, run, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    folder: tempfile::TempDir,
    server: ApiServer,
}

impl Bench {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::file("make", "a folder"))?;
        let server = ApiServer::local()?;
        std::fs::write(folder.path().join("ca"), server.authority()).map_err(Error::file("write", "ca"))?;
        Ok(Self { folder, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn curl(&self, path: &str, more: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-N", "--noproxy", "*", "-m", "30", "--cacert"]).arg(self.path("ca"));
        command.args(more).arg(format!("{}{path}", self.server.urls()[0]));
        command
    }

    /// The answer's status and body.
    fn ask(&self, path: &str, more: &[&str]) -> Result<(u16, Value)> {
        let token = format!("Authorization: Bearer {TOKEN}");
        let words = [&["-H", &token, "-w", "\n%{http_code}"], more].concat();
        let output = run(&mut self.curl(path, &words))?;
        let (body, code) = output.stdout.rsplit_once('\n').unwrap_or_default();
        let code = code.parse().map_err(|error| Error::answer(format!("curl {path}: {output:?}"), error))?;
        Ok((code, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// Names and the list's metadata.
    fn names(&self, path: &str) -> Result<(Vec<String>, Value)> {
        let (code, list) = self.ask(path, &[])?;
        assert_eq!(code, 200, "{path}: {list}");
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        Ok((names.collect(), list["metadata"].clone()))
    }

    fn version(&self) -> Result<String> {
        let (_, metadata) = self.names("/api/v1/services")?;
        Ok(metadata["resourceVersion"].as_str().unwrap_or_default().to_owned())
    }

    /// A watch that is running.
    fn watch(&self, query: &str) -> Result<Stream> {
        let token = format!("Authorization: Bearer {TOKEN}");
        let log = self.path(&format!("watch-{}", self.server.seen().len()));
        let before = self.server.watching().len();
        let path = format!("/api/v1/services?watch=true&{query}");
        let running = Running::start(&mut self.curl(&path, &["-H", &token]), &log)?;
        let stream = Stream { running };
        wait_for("the watch", LIMIT, || {
            let opened = self.server.watching().len() > before || !stream.running.log().is_empty();
            Ok(opened.then_some(()))
        })?;
        Ok(stream)
    }

    fn service(&self, name: &str, label: &str, cluster_ip: &str) -> Result<()> {
        self.server.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default", "labels": { "app": label } },
            "spec": { "clusterIP": cluster_ip, "clusterIPs": [cluster_ip] },
        }))
    }
}

struct Stream {
    running: Running,
}

impl Stream {
    /// The first events, as type and name (of a bookmark: its annotations).
    fn events(&self, wanted: usize) -> Result<Vec<(String, String)>> {
        wait_for(&format!("{wanted} events"), LIMIT, || {
            let log = self.running.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let events: Vec<_> = lines
                .map(|event| {
                    let text = |pointer| {
                        event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
                    };
                    let what = match text("/type").as_str() {
                        "BOOKMARK" => event["object"]["metadata"]["annotations"].to_string(),
                        "ERROR" => event["object"]["code"].to_string(),
                        _ => text("/object/metadata/name"),
                    };
                    (text("/type"), what)
                })
                .collect();
            if events.len() >= wanted { Ok(Some(events)) } else { Err(Error::answer("the watch", log)) }
        })
    }
}

fn pairs(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn lists_are_selected_and_paged() -> Result<()> {
    let bench = Bench::new()?;
    for (name, label, address) in [("a", "x", "10.96.0.1"), ("b", "y", "None"), ("c", "x", "10.96.0.3")] {
        bench.service(name, label, address)?;
    }
    let names = |query: &str| bench.names(&format!("/api/v1/services?{query}")).map(|(names, _)| names);
    assert_eq!(names("")?, ["a", "b", "c"]);
    assert_eq!(names("fieldSelector=spec.clusterIP%21%3DNone")?, ["a", "c"]);
    assert_eq!(names("labelSelector=app%3Dy")?, ["b"]);
    assert_eq!(names("labelSelector=%21app")?, Vec::<String>::new());
    assert_eq!(names("fieldSelector=metadata.name%3Dc")?, ["c"]);
    assert_eq!(bench.ask("/api/v1/services?fieldSelector=spec.nodeName%3Dx", &[])?.0, 400);

    let (first, metadata) = bench.names("/api/v1/services?limit=2")?;
    assert_eq!(first, ["a", "b"]);
    // What happens meanwhile is not in the later pages.
    bench.service("d", "x", "None")?;
    let next =
        format!("/api/v1/services?limit=2&continue={}", metadata["continue"].as_str().unwrap_or_default());
    let (second, last) = bench.names(&next)?;
    assert_eq!((second, &last["continue"]), (vec!["c".to_owned()], &Value::Null));
    assert_eq!(last["resourceVersion"], metadata["resourceVersion"]);
    bench.server.forget();
    let (code, status) = bench.ask(&next, &[])?;
    assert_eq!((code, &status["reason"], &status["kind"]), (410, &json!("Expired"), &json!("Status")));
    Ok(())
}

#[test]
fn a_watch_tells_what_happens_from_a_version_on() -> Result<()> {
    let bench = Bench::new()?;
    bench.service("old", "x", "10.96.0.1")?;
    let version = bench.version()?;
    let selected = "labelSelector=app%3Dx";
    let watch = bench.watch(&format!("resourceVersion={version}&{selected}"))?;
    bench.service("new", "x", "10.96.0.2")?;
    bench.service("other", "y", "10.96.0.3")?;
    bench.service("old", "x", "10.96.0.4")?;
    // What stops to match is gone for whoever watches, and what begins to, new.
    bench.service("new", "y", "10.96.0.2")?;
    bench.service("other", "x", "10.96.0.3")?;
    bench.server.delete(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "old"}}))?;
    let expected = pairs(&[
        ("ADDED", "new"),
        ("MODIFIED", "old"),
        ("DELETED", "new"),
        ("ADDED", "other"),
        ("DELETED", "old"),
    ]);
    assert_eq!(watch.events(5)?, expected);
    let again = bench.watch(&format!("resourceVersion={version}&{selected}"))?;
    assert_eq!(again.events(5)?, expected, "the past is told to whoever asks for it");
    let everything = bench.watch("")?;
    assert_eq!(everything.events(2)?, pairs(&[("ADDED", "new"), ("ADDED", "other")]));
    Ok(())
}

#[test]
fn a_streaming_list_ends_with_its_bookmark_and_can_be_switched_off() -> Result<()> {
    let bench = Bench::new()?;
    bench.service("a", "x", "10.96.0.1")?;
    bench.service("b", "x", "10.96.0.2")?;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let watch = bench.watch(query)?;
    let end = ("BOOKMARK", r#"{"k8s.io/initial-events-end":"true"}"#);
    assert_eq!(watch.events(3)?, pairs(&[("ADDED", "a"), ("ADDED", "b"), end]));
    bench.service("c", "x", "10.96.0.3")?;
    let later = watch.events(5)?;
    assert!(later.contains(&("BOOKMARK".to_owned(), "null".to_owned())), "{later:?}");
    assert!(later.contains(&("ADDED".to_owned(), "c".to_owned())), "{later:?}");

    let without = query.replace("&resourceVersionMatch=NotOlderThan", "");
    assert_eq!(bench.ask(&format!("/api/v1/services?watch=1&{without}"), &[])?.0, 422);
    bench.server.behave(|behaviour| behaviour.watch_progress = false);
    assert_eq!(bench.watch(query)?.events(1)?, pairs(&[("ERROR", "500")]));
    bench.server.behave(|behaviour| behaviour.streaming_lists = false);
    let (code, status) = bench.ask(&format!("/api/v1/services?watch=1&{query}"), &[])?;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    Ok(())
}

#[test]
fn versions_that_are_gone_are_an_error_in_the_stream() -> Result<()> {
    let bench = Bench::new()?;
    bench.service("a", "x", "10.96.0.1")?;
    let version = bench.version()?;
    let running = bench.watch(&format!("resourceVersion={version}"))?;
    bench.server.forget();
    let late = bench.watch(&format!("resourceVersion={version}"))?;
    assert_eq!(late.events(1)?, pairs(&[("ERROR", "410")]));
    bench.service("b", "x", "10.96.0.2")?;
    assert_eq!(running.events(1)?, pairs(&[("ADDED", "b")]), "a running watch goes on");
    bench.server.hit("services", Blow::Gone);
    assert_eq!(running.events(2)?, pairs(&[("ADDED", "b"), ("ERROR", "410")]));
    Ok(())
}

#[test]
fn streams_break_fall_silent_and_end() -> Result<()> {
    let bench = Bench::new()?;
    let mut cut = bench.watch("allowWatchBookmarks=true")?;
    bench.server.hit("nodes", Blow::Cut);
    bench.server.hit("services", Blow::Cut);
    // 18 and 56 are curl's words for an answer that broke off.
    let code = cut.running.wait(LIMIT)?;
    assert!(matches!(code, Some(18 | 56)), "{code:?}");
    assert!(cut.running.log().contains("\"metada"), "{}", cut.running.log());

    let mut ended = bench.watch("")?;
    bench.server.hit("*", Blow::End);
    assert_eq!(ended.running.wait(LIMIT)?, Some(0));
    assert_eq!(bench.watch("timeoutSeconds=1")?.running.wait(LIMIT)?, Some(0));

    let silent = bench.watch("allowWatchBookmarks=true")?;
    bench.server.behave(|behaviour| _ = behaviour.silent.insert("services".to_owned()));
    bench.service("a", "x", "10.96.0.1")?;
    // Another request, the whole way there and back, shows that the server had the time to speak.
    wait_for("the list", LIMIT, || Ok((bench.names("/api/v1/services")?.0 == ["a"]).then_some(())))?;
    assert!(!silent.running.log().contains("ADDED"), "{}", silent.running.log());
    bench.server.behave(|behaviour| behaviour.silent.clear());
    wait_for("the event", LIMIT, || Ok(silent.running.log().contains("ADDED").then_some(())))
}

#[test]
fn only_those_are_served_who_are_known() -> Result<()> {
    let bench = Bench::new()?;
    let code = |words: &[&str]| -> Result<String> {
        let words = [words, &["-o", "/dev/null", "-w", "%{http_code}"]].concat();
        Ok(run(&mut bench.curl("/api/v1/nodes", &words))?.stdout)
    };
    let token = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(code(&[])?, "401");
    assert_eq!(code(&["-H", &token])?, "200");
    bench.server.behave(|behaviour| behaviour.tokens = ["second".to_owned()].into());
    assert_eq!(code(&["-H", &token])?, "401");
    let file = bench.path("kubeconfig");
    let identity = bench.server.client_certificate("system:node:one")?;
    bench.server.kubeconfig(&file, 0, &Credentials::Certificate(identity))?;
    let (certificate, key) = (file.with_extension("crt"), file.with_extension("key"));
    let words = ["--cert", &certificate.to_string_lossy(), "--key", &key.to_string_lossy()];
    assert_eq!(code(&words)?, "200");
    Ok(())
}

#[test]
fn requests_are_refused_as_asked_for_and_others_are_not() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.refuse("services", 429, Some(7), 1);
    let output =
        run(&mut bench.curl("/api/v1/services", &["-i", "-H", &format!("Authorization: Bearer {TOKEN}")]))?;
    assert!(output.stdout.to_lowercase().contains("retry-after: 7"), "{}", output.stdout);
    assert_eq!(bench.ask("/api/v1/services", &[])?.0, 200);
    bench.server.behave(|behaviour| _ = behaviour.unknown.insert("servicecidrs".to_owned()));
    assert_eq!(bench.ask("/apis/networking.k8s.io/v1/servicecidrs", &[])?.0, 404);
    assert_eq!(bench.ask("/api/v1/services", &["-X", "POST", "-d", "{}"])?.0, 403);
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "reason": "Test", "series": {"count": 1}}).to_string();
    assert_eq!(bench.ask(events, &["-d", &event])?.0, 201);
    assert_eq!(bench.ask(events, &["-d", &event])?.0, 409);
    let patch = r#"{"series":{"count":2}}"#;
    assert_eq!(bench.ask(&format!("{events}/e"), &["-X", "PATCH", "-d", patch])?.0, 200);
    let stored = bench.server.objects("events");
    assert_eq!(
        (stored.len(), &stored[0]["reason"], &stored[0]["series"]["count"]),
        (1, &json!("Test"), &json!(2))
    );
    Ok(())
}

#[test]
fn a_server_that_was_stopped_has_its_objects_again() -> Result<()> {
    let bench = Bench::new()?;
    bench.service("a", "x", "10.96.0.1")?;
    let mut watch = bench.watch("")?;
    bench.server.stop();
    assert_ne!(watch.running.wait(LIMIT)?, None);
    assert_eq!(bench.server.watching(), []);
    // 7: nobody listens.
    assert_eq!(run(&mut bench.curl("/api/v1/services", &[]))?.code, Some(7));
    bench.service("b", "x", "10.96.0.2")?;
    bench.server.start()?;
    assert_eq!(bench.names("/api/v1/services")?.0, ["a", "b"]);
    Ok(())
}
