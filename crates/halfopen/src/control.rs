//! The control socket of a trial: its programs break and heal the path themselves, and ask what is
//! predicted. HTTP with JSON on a Unix socket, the path of which is in `HALFOPEN_CONTROL`.

use crate::output::{self, Exit};
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use spec::file::Override;
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as Listener;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The variable that has the socket's path.
pub(crate) const VARIABLE: &str = "HALFOPEN_CONTROL";
/// Where a program finds it: its own /dev/shm.
const PATH: &str = "/dev/shm/halfopen-control";
const NAME: &str = "halfopen-control";
/// A request is a short document.
const BODY_MOST: usize = 64 * 1024;

/// What a program asks of its trial.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To break something: settings by their keys.
    Fault(Vec<(String, String)>),
    /// To undo it.
    Heal,
    /// What is predicted of each connection from now on.
    When,
    /// Which connections there are.
    Flows,
}

/// A wish, and where the answer goes: a document, or why not.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) wish: Wish,
    pub(crate) answer: oneshot::Sender<Result<Value, String>>,
}

/// The socket of one program. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    /// The tmpfs that the socket is in, for the program's /dev/shm.
    shm: OwnedFd,
    task: JoinHandle<()>,
}

impl ControlSocket {
    /// Opens one; what comes in goes to `trial`.
    pub(crate) fn open(trial: mpsc::Sender<Asked>) -> Result<Self> {
        let shm = sandbox::private_tmpfs().context("mounting a tmpfs for the control socket")?;
        let path = format!("/proc/self/fd/{}/{NAME}", shm.as_raw_fd());
        let opening = "opening the control socket";
        let listener = Listener::bind(&path).context(opening)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).context(opening)?;
        listener.set_nonblocking(true).context(opening)?;
        let listener = UnixListener::from_std(listener).context(opening)?;
        let task = tokio::spawn(async move {
            // An error is one program's.
            while let Ok((stream, _)) = listener.accept().await {
                let trial = trial.clone();
                let service = service_fn(move |request| respond(request, trial.clone()));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    let _ = serving.await;
                });
            }
        });
        Ok(Self { shm, task })
    }

    /// The environment that tells a program of it.
    pub(crate) fn variable() -> (String, String) {
        (VARIABLE.into(), PATH.into())
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shm.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    request: Request<Incoming>,
    trial: mpsc::Sender<Asked>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, document) = match understand(request).await {
        Err((status, why)) => (status, json!({ "error": why })),
        Ok(wish) => {
            let (answer, answered) = oneshot::channel();
            let told = trial.send(Asked { wish, answer }).await.is_ok();
            match if told { answered.await.ok() } else { None } {
                Some(Ok(document)) => (StatusCode::OK, document),
                Some(Err(why)) => (StatusCode::CONFLICT, json!({ "error": why })),
                None => (StatusCode::CONFLICT, json!({ "error": "the trial is over" })),
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(document.to_string() + "\n")));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

const ACCEPTED: &str =
    "POST /fault {\"kind\": \"flap\", \"for\": \"5s\"}, POST /heal, GET /when, GET /flows";

async fn understand(request: Request<Incoming>) -> Result<Wish, (StatusCode, String)> {
    let (head, body) = request.into_parts();
    // Read whether it is wanted or not: who is still writing it must not find the connection closed.
    let body = Limited::new(body, BODY_MOST).collect().await;
    let body = body.map_err(|why| (StatusCode::BAD_REQUEST, why.to_string()))?.to_bytes();
    match (head.method, head.uri.path()) {
        (Method::POST, "/fault") => {
            settings(&body).map(Wish::Fault).map_err(|why| (StatusCode::CONFLICT, why))
        }
        (Method::POST, "/heal") => Ok(Wish::Heal),
        (Method::GET, "/when") => Ok(Wish::When),
        (Method::GET, "/flows") => Ok(Wish::Flows),
        (method, path) => {
            Err((StatusCode::NOT_FOUND, format!("{method} {path}: accepted are {ACCEPTED}")))
        }
    }
}

/// The settings of a fault: `{"kind": "flap", "for": "5s"}` is `fault.kind` and `fault.duration`.
fn settings(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let fault: Map<String, Value> = serde_json::from_slice(body).map_err(|why| {
        format!("{why}: a fault is such as {{\"kind\": \"flap\", \"for\": \"5s\"}}")
    })?;
    let setting = |(name, value): (String, Value)| {
        let key = if name == "for" { "duration" } else { &name };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (format!("fault.{key}"), text)
    };
    if !fault.contains_key("kind") {
        return Err("`kind` is missing: which fault?".into());
    }
    Ok(fault.into_iter().map(setting).collect())
}

/// `halfopen fault`.
pub(crate) fn fault(kind: &str, lasts: Option<String>, settings: Vec<Override>) -> Exit {
    let mut fault = Map::from_iter([("kind".to_owned(), json!(kind))]);
    fault.extend(lasts.map(|lasts| ("for".to_owned(), json!(lasts))));
    fault.extend(settings.into_iter().map(|(key, value)| {
        let name = key.strip_prefix("fault.").map_or(key.clone(), str::to_owned);
        (name, json!(value))
    }));
    told(ask(Method::POST, "/fault", &Value::Object(fault)))
}

/// `halfopen heal`.
pub(crate) fn heal() -> Exit {
    told(ask(Method::POST, "/heal", &Value::Null))
}

fn told(answer: Result<Value>) -> Exit {
    match answer {
        Ok(document) => output::print(format!("{document}\n").as_bytes()),
        Err(error) => output::fail(Exit::USAGE, &error),
    }
}

/// Asks the trial that this process is a program of. Returns the document.
///
/// # Errors
/// For a person: this is no program of a trial, or why the trial does not do it.
fn ask(method: Method, path: &str, body: &Value) -> Result<Value> {
    let socket = std::env::var_os(VARIABLE).with_context(|| {
        format!("{VARIABLE} is not set: this works from inside the programs of `halfopen exec`")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(&socket)
            .await
            .with_context(|| format!("connecting to {}", socket.display()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, NAME)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let document: Value = serde_json::from_slice(&body).context("reading the answer")?;
        if status != StatusCode::OK {
            anyhow::bail!("{}", document["error"].as_str().unwrap_or("the trial refused"));
        }
        Ok(document)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_settings() {
        let read = settings(br#"{"kind": "flap", "for": "5s", "new_mac": true}"#).unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read,
            [
                pair("fault.duration", "5s"),
                pair("fault.kind", "flap"),
                pair("fault.new_mac", "true")
            ]
        );
        assert!(settings(b"{}").unwrap_err().contains("kind"));
        assert!(settings(b"flap").unwrap_err().contains("such as"));
    }
}
