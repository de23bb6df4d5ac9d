//! The server's HTTP side: who may ask, what is asked for, who answers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answer::{Refusal, json_text};
use super::fault::Behaviour;
use super::request::Options;
use super::resource::Target;
use super::tls::Peer;
use super::{Open, Resource, Seen, Shared, list, stream};

/// The largest body of a request.
const LARGEST: usize = 1 << 20;

/// Everything under every path.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).with_state(shared)
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seen = Seen {
        client: peer.address.ip().to_canonical(),
        agent: header(header::USER_AGENT).to_owned(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        code: 0,
    };
    let behaviour = shared.faults.behaviour();
    tokio::time::sleep(behaviour.delay).await;
    let bearer = header(header::AUTHORIZATION).strip_prefix("Bearer ");
    let administrator = bearer.is_some_and(|token| behaviour.administrators.contains(token));
    let allowed = administrator
        || bearer.is_some_and(|token| behaviour.tokens.contains(token))
        || (peer.certified && behaviour.client_certificates);
    let response = if administrator && matches!(parts.method, Method::PATCH | Method::DELETE) {
        administrate(&shared, &parts, body).await.unwrap_or_else(IntoResponse::into_response)
    } else if allowed {
        answer(&shared, &behaviour, &parts, body, &seen).await.unwrap_or_else(IntoResponse::into_response)
    } else {
        Refusal::new(401, "Unauthorized", "Unauthorized").into_response()
    };
    shared.log(Seen { code: response.status().as_u16(), ..seen });
    response
}

async fn answer(
    shared: &Arc<Shared>,
    behaviour: &Behaviour,
    parts: &Parts,
    body: Body,
    seen: &Seen,
) -> Result<Response, Refusal> {
    let path = parts.uri.path();
    if let Some(refusal) = shared.faults.refusal(path.rsplit('/').next().unwrap_or_default()) {
        return Err(refusal);
    }
    match path {
        "/healthz" | "/livez" | "/readyz" => return Ok("ok".into_response()),
        "/version" => {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0+testbed"});
            return Ok(json_text(version.to_string()));
        }
        _ => {}
    }
    let target = Target::read(path)
        .filter(|target| !behaviour.unknown.contains(target.resource.plural))
        .ok_or_else(|| Refusal::new(404, "NotFound", "the server could not find the requested resource"))?;
    match (&parts.method, target.name) {
        (&Method::GET, None) => {
            let query = parts.uri.query().unwrap_or_default();
            let options = Options::read(query, &target, behaviour.streaming_lists)?;
            if !options.watch {
                let text = list::list(&shared.store, target.resource, &options, &shared.faults)?;
                return Ok(json_text(text));
            }
            let open = Open::new(shared, target.resource, seen);
            Ok(json_text(stream::body(shared, target.resource, options, open)))
        }
        (&Method::GET, Some(name)) => {
            let key = (target.namespace.unwrap_or_default().to_owned(), name.to_owned());
            let (objects, _) = shared.store.objects(target.resource);
            let object = objects.get(&key).ok_or_else(|| Refusal::not_found(path))?;
            Ok(json_text(object.whole(target.resource)))
        }
        (method, name) if target.resource.plural == "events" => {
            let bytes = to_bytes(body, LARGEST).await;
            let bytes = bytes.map_err(|error| Refusal::bad_request(error.to_string()))?;
            let value =
                serde_json::from_slice(&bytes).map_err(|error| Refusal::bad_request(error.to_string()))?;
            write_event(shared, target.resource, method, target.namespace, name, value)
        }
        // What a node has no business to do.
        (method, _) => Err(Refusal::new(403, "Forbidden", format!("{method} {path} is forbidden"))),
    }
}

/// Applies or deletes an object. All that is ever applied comes from one manager: what it leaves out is gone, but for
/// the status, which is written by itself.
async fn administrate(shared: &Shared, parts: &Parts, body: Body) -> Result<Response, Refusal> {
    let path = parts.uri.path();
    let of_status = path.strip_suffix("/status");
    let target = Target::read(of_status.unwrap_or(path));
    let target = target.ok_or_else(|| Refusal::not_found(path))?;
    let name = target.name.ok_or_else(|| Refusal::bad_request("an object has a name"))?;
    let key = (target.namespace.unwrap_or_default().to_owned(), name.to_owned());
    let old = shared.store.objects(target.resource).0.get(&key).map(|object| object.value());
    if parts.method == Method::DELETE {
        let gone = shared.store.remove(target.resource, &key).ok_or_else(|| Refusal::not_found(path))?;
        return Ok(json_text(gone.whole(target.resource)));
    }
    let bytes = to_bytes(body, LARGEST).await.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let applied: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let mut value = applied.clone();
    match (of_status, old) {
        (None, None) => {}
        (None, Some(old)) => take_status(&mut value, &old),
        (Some(_), None) => return Err(Refusal::not_found(path)),
        (Some(_), Some(old)) => {
            value = old;
            take_status(&mut value, &applied);
        }
    }
    let object = shared.put(target.resource, key, value);
    Ok(json_text(object.whole(target.resource)))
}

fn take_status(value: &mut Map<String, Value>, from: &Map<String, Value>) {
    value.extend(from.get_key_value("status").map(|(name, status)| (name.clone(), status.clone())));
}

/// Creates an event, or merges into one.
fn write_event(
    shared: &Shared,
    resource: &'static Resource,
    method: &Method,
    namespace: Option<&str>,
    name: Option<&str>,
    value: Map<String, Value>,
) -> Result<Response, Refusal> {
    let namespace = namespace.ok_or_else(|| Refusal::bad_request("an event lies in a namespace"))?;
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let name = match (name.or_else(|| metadata["name"].as_str()), metadata["generateName"].as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(prefix)) => format!("{prefix}{:05x}", shared.store.objects(resource).1),
        (None, None) => return Err(Refusal::new(422, "Invalid", "metadata.name: Required value")),
    };
    let key = (namespace.to_owned(), name);
    let old = shared.store.objects(resource).0.get(&key).cloned();
    let value = match (method, old) {
        (&Method::POST, Some(_)) => {
            return Err(Refusal::new(409, "AlreadyExists", format!("events {:?} already exists", key.1)));
        }
        (&Method::POST, None) | (&Method::PUT, Some(_)) => value,
        (&Method::PATCH, Some(old)) => {
            let mut merged = Value::Object(old.value());
            merge(&mut merged, Value::Object(value));
            merged.as_object().cloned().unwrap_or_default()
        }
        (&Method::PATCH | &Method::PUT, None) => return Err(Refusal::not_found(&key.1)),
        _ => return Err(Refusal::new(405, "MethodNotAllowed", "not on events")),
    };
    let object = shared.put(resource, key, value);
    let mut response = json_text(object.whole(resource));
    if method == Method::POST {
        *response.status_mut() = axum::http::StatusCode::CREATED;
    }
    Ok(response)
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}
