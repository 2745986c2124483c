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
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// The variable that has the socket's path.
pub(crate) const VARIABLE: &str = "HALFOPEN_CONTROL";
/// Where a program finds it: its own /dev/shm.
const PATH: &str = "/dev/shm/halfopen-control";
const NAME: &str = "halfopen-control";
/// A request is a short document.
const BODY_MOST: usize = 64 * 1024;

/// Connections of one program that are served at once.
const CONNECTIONS_MOST: usize = 6;

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
        let task = tokio::spawn(accept(listener, trial));
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

/// Serves the program's connections, no more than [`CONNECTIONS_MOST`] at once. The next wait in the
/// socket's queue: descriptors are the worker's, and other trials need them.
async fn accept(listener: UnixListener, trial: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else { return };
        let trial = trial.clone();
        tokio::spawn(async move {
            serve(stream, trial).await;
            drop(place);
        });
    }
}

/// Serves one connection to its end; an error is the program's.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, trial: mpsc::Sender<Asked>) {
    let service = service_fn(move |request| respond(request, trial.clone()));
    let mut connection = hyper::server::conn::http1::Builder::new();
    // Who has said all may shut down its side (`nc -N`) and is answered all the same.
    connection.half_close(true);
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
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
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    match (head.method, path) {
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
    if fault.contains_key("for") && fault.contains_key("duration") {
        return Err("`for` and `duration` are the same: give one".into());
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
    let socket = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).with_context(|| {
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
    use proptest::prelude::*;
    use spec::Parameters;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        let twice = settings(br#"{"kind": "flap", "for": "5s", "duration": "6s"}"#);
        assert!(twice.unwrap_err().contains("give one"));
    }

    /// Nothing is asked about one connection alone: who tries is told what there is.
    #[test]
    fn a_question_with_a_filter_is_refused() {
        let asked = b"GET /when?flow=1 HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = String::from_utf8(answered(asked)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("GET /when, "), "{answer}");
    }

    /// What is answered to these bytes by a trial that is over.
    fn answered(sent: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (trial, asked) = mpsc::channel(1);
        drop(asked);
        runtime.block_on(async {
            let (mut program, socket) = tokio::io::duplex(1 << 20);
            program.write_all(sent).await.unwrap();
            program.shutdown().await.unwrap();
            serve(socket, trial).await;
            let mut answer = Vec::new();
            program.read_to_end(&mut answer).await.unwrap();
            answer
        })
    }

    const FAULT: &str = "POST /fault HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\n\
        {\"kind\": \"flap\", \"for\": \"5s\"}GET /when HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let answer = String::from_utf8(answered(FAULT.as_bytes())).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 409 ").count(), 2, "{answer}");
        assert_eq!(answer.matches("the trial is over").count(), 2, "{answer}");
    }

    #[test]
    fn a_program_that_connects_again_and_again_costs_few_descriptors() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("control");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let (trial, asked) = mpsc::channel(1);
            drop(asked);
            tokio::spawn(accept(listener, trial));
            let mut idle = Vec::new();
            for _ in 0..CONNECTIONS_MOST {
                idle.push(tokio::net::UnixStream::connect(&path).await.unwrap());
            }
            let mut next = tokio::net::UnixStream::connect(&path).await.unwrap();
            next.write_all(b"GET /flows HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            let patience = std::time::Duration::from_millis(300);
            let waits = tokio::time::timeout(patience, next.read_to_string(&mut answer)).await;
            assert!(waits.is_err(), "it has its turn when another has left: {answer}");
            idle.pop();
            next.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("the trial is over"), "{answer}");
        });
    }

    proptest! {
        #[test]
        fn foreign_requests_are_answered(
            sent in prop_oneof![
                damage::bytes(FAULT),
                prop::collection::vec(any::<u8>(), 0..100),
            ],
        ) {
            let answer = answered(&sent);
            prop_assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        }

        #[test]
        fn foreign_faults_are_settings_or_refused(
            body in damage::document(json!({"kind": "flap", "for": "5s", "packets": 3, "loss": 0.3})),
        ) {
            match settings(body.to_string().as_bytes()) {
                Ok(settings) => for (key, value) in settings {
                    let refused = spec::settings::apply(&mut Parameters::default(), &key, &value).err();
                    prop_assert!(refused.is_none_or(|why| !why.is_empty()));
                },
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }
    }
}
