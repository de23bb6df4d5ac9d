//! A small server that says exactly what a test tells it to.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What the server does with one request.
pub(crate) enum Answer {
    /// This status and body.
    Body(u16, String),
    /// These lines at once, then what the test sends, until the sender is dropped.
    Stream(Vec<String>, UnboundedReceiver<Line>),
    /// Nothing, ever.
    Hang,
}

pub(crate) type Line = Result<Bytes, Infallible>;

pub(crate) type Parameters = BTreeMap<String, String>;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) parameters: Parameters,
    pub(crate) token: Option<String>,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.parameters.contains_key("watch")
    }

    pub(crate) fn is_streamed_list(&self) -> bool {
        self.parameters.get("sendInitialEvents").is_some_and(|value| value == "true")
    }

    pub(crate) fn version(&self) -> &str {
        self.parameters.get("resourceVersion").map_or("", |text| text)
    }
}

#[derive(Default)]
pub(crate) struct Script {
    /// What was asked of Nodes.
    pub(crate) asked: Vec<Asked>,
    /// What was asked of Pods.
    pub(crate) pods: Vec<Asked>,
    pub(crate) answers: VecDeque<Answer>,
    /// What was asked of ServiceImports.
    pub(crate) imports: Vec<Asked>,
    /// Paths that lead nowhere.
    pub(crate) absent: Vec<&'static str>,
    /// Kinds that nobody may see.
    pub(crate) forbidden: Vec<&'static str>,
    /// Events that were written, with the paths that they were written to.
    pub(crate) events: Vec<(String, serde_json::Value)>,
}

/// A server. Of Nodes it says what the test tells it to; of all else, that there is none.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) address: String,
    pub(crate) runtime: Arc<tokio::runtime::Runtime>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let routes = Router::new().fallback(answer).with_state(script.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { script, address, runtime: Arc::new(runtime) }
    }

    pub(crate) fn expect(&self, answer: Answer) {
        self.script.lock().unwrap().answers.push_back(answer);
    }

    pub(crate) fn pages(&self, pages: &[(&[String], &str)], version: &str) {
        for (items, more) in pages {
            let body = format!(
                r#"{{"kind":"NodeList","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","continue":"{more}"}},"items":[{}]}}"#,
                items.join(",")
            );
            self.expect(Answer::Body(200, body));
        }
    }

    /// A watch that begins with these lines; the sender takes more.
    pub(crate) fn watch(&self, lines: &[String]) -> UnboundedSender<Line> {
        let (sender, receiver) = unbounded_channel();
        self.expect(Answer::Stream(lines.to_vec(), receiver));
        sender
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Waits until so many requests have come; gives the last.
    pub(crate) fn wait_for(&self, count: usize) -> Asked {
        wait("requests", || {
            let asked = self.asked();
            (asked.len() >= count).then(|| asked[count - 1].clone())
        })
    }
}

pub(crate) fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let parameters = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let token = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    if request.method() == Method::POST {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let event = serde_json::from_slice(&body).unwrap();
        script.lock().unwrap().events.push((path, event));
        return (StatusCode::CREATED, body).into_response();
    }
    let asked = Asked { path, parameters, token };
    if asked.path != "/api/v1/nodes" {
        // Nothing there, and nothing ever happens.
        let is_absent = script.lock().unwrap().absent.contains(&&*asked.path);
        if asked.path.ends_with("servicecidrs") || is_absent {
            return (StatusCode::NOT_FOUND, status(404, "NotFound")).into_response();
        }
        if script.lock().unwrap().forbidden.iter().any(|kind| asked.path.ends_with(kind)) {
            return (StatusCode::FORBIDDEN, status(403, "Forbidden")).into_response();
        }
        if asked.path.ends_with("pods") {
            script.lock().unwrap().pods.push(asked.clone());
        }
        if asked.path.ends_with("serviceimports") {
            script.lock().unwrap().imports.push(asked.clone());
        }
        let kind = if asked.path.ends_with("endpointslices") { "EndpointSlice" } else { "Service" };
        let lines = if asked.is_streamed_list() { vec![end_of_list(kind, "1")] } else { Vec::new() };
        return lines_and(lines, futures_util::stream::pending());
    }
    let answer = {
        let mut script = script.lock().unwrap();
        script.asked.push(asked);
        script.answers.pop_front()
    };
    match answer {
        Some(Answer::Body(code, body)) => (StatusCode::from_u16(code).unwrap(), body).into_response(),
        Some(Answer::Stream(lines, more)) => {
            let more = futures_util::stream::unfold(more, async |mut more| Some((more.recv().await?, more)));
            lines_and(lines, more)
        }
        Some(Answer::Hang) => futures_util::future::pending().await,
        None => (StatusCode::SERVICE_UNAVAILABLE, status(503, "NothingLeftToSay")).into_response(),
    }
}

pub(crate) fn lines_and(
    lines: Vec<String>,
    more: impl futures_util::Stream<Item = Line> + Send + 'static,
) -> Response {
    let first = futures_util::stream::iter(lines.into_iter().map(|line| Ok(Bytes::from(line + "\n"))));
    Response::new(Body::from_stream(futures_util::StreamExt::chain(first, more)))
}

pub(crate) fn status(code: u16, reason: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"because","reason":"{reason}","code":{code}}}"#
    )
}

pub(crate) fn node(name: &str, network: &str, version: u64) -> String {
    format!(
        r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{name}","resourceVersion":"{version}"}},"spec":{{"podCIDRs":["{network}"]}}}}"#
    )
}

pub(crate) fn event(what: &str, object: &str) -> String {
    format!(r#"{{"type":"{what}","object":{object}}}"#)
}

pub(crate) fn bookmark(kind: &str, version: &str, annotations: &str) -> String {
    event(
        "BOOKMARK",
        &format!(
            r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","annotations":{{{annotations}}}}}}}"#
        ),
    )
}

pub(crate) fn end_of_list(kind: &str, version: &str) -> String {
    bookmark(kind, version, r#""k8s.io/initial-events-end":"true""#)
}

pub(crate) fn line(text: &str) -> Line {
    Ok(Bytes::from(format!("{text}\n")))
}
