//! `/exec`, `/attach`, `/run`. Upstream: `getExec`, `getAttach`, `getRun` in `pkg/kubelet/server/server.go`.

use super::query::Query;
use super::remote::{self, Channel, Output, Remote, SPDY_PROTOCOLS, WEBSOCKET_PROTOCOLS, Wanted};
use super::{Body, Reply, empty, full, plain, spdy, websocket};
use crate::kubelet::{Kubelet, describe};
use crate::pod_view::PodView;
use bytes::{Bytes, BytesMut};
use coracle_oci::{ExecSpec, Stream};
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use http::{HeaderName, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const CHUNK: usize = 32 * 1024;

/// Runs a command in a container and connects the client to it.
pub async fn exec(
    kubelet: &Arc<Kubelet>,
    view: &PodView,
    container: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let id = running(view, container)?;
    let wanted = wanted(&query)?;
    let spec = ExecSpec {
        argv: query.all("command").map(str::to_owned).collect(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        ..ExecSpec::default()
    };
    let kubelet = kubelet.clone();
    upgrade(request, wanted, move |remote| async move {
        let Remote {
            stdin,
            mut resize,
            output,
            gone,
        } = remote;
        let mut spec = spec;
        // kubectl sends the size of its terminal at once; a program that starts with it draws itself right.
        spec.size = resize.try_recv().ok();
        let mut session = match kubelet.runtime.exec(&id, spec).await {
            Ok(session) => session,
            Err(error) => return output.finish(&internal_error(&describe(&error))).await,
        };
        let streams = (session.stdin.take(), session.stdout.take(), session.stderr.take());
        let copied = copy(streams, stdin, &output);
        let sizes = async {
            while let Some((columns, rows)) = resize.recv().await {
                // The process may have ended.
                let _ = session.resize(columns, rows);
            }
            std::future::pending::<()>().await
        };
        // Cancel-safe: what ends first ends all; dropping the session kills a process whose client is gone.
        tokio::select! {
            () = copied => {}
            () = sizes => {}
            _ = gone => return,
        }
        let status = match session.wait().await {
            Ok(code) => exit_status(code),
            Err(error) => internal_error(&describe(&error)),
        };
        output.finish(&status).await;
    })
    .await
}

/// Connects the client to a container's first process.
pub async fn attach(
    kubelet: &Arc<Kubelet>,
    view: &PodView,
    container: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let id = running(view, container)?;
    let wanted = wanted(&query)?;
    let kubelet = kubelet.clone();
    upgrade(request, wanted, move |remote| async move {
        let Remote {
            stdin,
            mut resize,
            output,
            gone,
        } = remote;
        let mut attachment = match kubelet.runtime.attach(&id).await {
            Ok(attachment) => attachment,
            Err(error) => return output.finish(&internal_error(&describe(&error))).await,
        };
        let streams = (
            attachment.stdin.take(),
            attachment.stdout.take(),
            attachment.stderr.take(),
        );
        let copied = copy(streams, stdin, &output);
        let sizes = async {
            while let Some((columns, rows)) = resize.recv().await {
                let _ = attachment.resize(columns, rows);
            }
            std::future::pending::<()>().await
        };
        // Cancel-safe: what ends first ends all; the process goes on without its client.
        tokio::select! {
            () = copied => output.finish(&success()).await,
            () = sizes => {}
            _ = gone => {}
        }
    })
    .await
}

/// Runs a command and answers with what it prints.
pub async fn run(
    kubelet: &Arc<Kubelet>,
    view: &PodView,
    container: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let id = running(view, container)?;
    let failed = |error: String| plain(StatusCode::INTERNAL_SERVER_ERROR, error);
    let spec = ExecSpec {
        argv: query
            .get("cmd")
            .unwrap_or_default()
            .split(' ')
            .map(str::to_owned)
            .collect(),
        ..ExecSpec::default()
    };
    let mut session = kubelet
        .runtime
        .exec(&id, spec)
        .await
        .map_err(|error| failed(describe(&error)))?;
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let (out, err, code) = tokio::join!(read(stdout), read(stderr), session.wait());
    code.map_err(|error| failed(describe(&error)))?;
    Ok(Response::new(full([out, err].concat())))
}

async fn read(stream: Option<Stream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is shown.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    bytes
}

fn running(view: &PodView, container: &str) -> Result<String, Reply> {
    let found = view.containers.iter().find(|c| c.name == container);
    let id = found.and_then(|c| c.running.clone());
    id.ok_or_else(|| {
        plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("container not found ({container:?})"),
        )
    })
}

/// Kubelets call the streams input, output and error; API servers stdin, stdout and stderr.
fn wanted(query: &Query) -> Result<Wanted, Reply> {
    let tty = query.flag(&["tty"]);
    let wanted = Wanted {
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        stderr: query.flag(&["error", "stderr"]) && !tty,
        tty,
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(plain(StatusCode::BAD_REQUEST, message));
    }
    Ok(wanted)
}

/// Switches protocols and then runs `talk` with the client's end.
async fn upgrade<F>(
    mut request: Request<Incoming>,
    wanted: Wanted,
    talk: impl FnOnce(Remote) -> F + Send + 'static,
) -> Result<Response<Body>, Reply>
where
    F: Future<Output = ()> + Send,
{
    if websocket::is_requested(request.headers()) {
        let (_, response, upgrade) = websocket::accept(&mut request, &WEBSOCKET_PROTOCOLS)?;
        tokio::spawn(async move {
            match websocket::connect(upgrade).await {
                Ok(socket) => talk(remote::over_websocket(socket, wanted).await).await,
                Err(error) => tracing::debug!(%error, "websocket not opened"),
            }
        });
        return Ok(response);
    }
    let protocol = spdy_protocol(request.headers(), &SPDY_PROTOCOLS)?;
    let response = spdy_accepted(protocol)?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "spdy connection not opened"),
        };
        let (sender, opened) = mpsc::channel(8);
        let (gone_sender, gone) = oneshot::channel();
        let serve = async {
            if let Err(error) = spdy::serve(io, sender).await {
                tracing::debug!(%error, "spdy connection broke");
            }
            // Whoever waited for it may be gone as well.
            let _ = gone_sender.send(());
        };
        let work = async {
            if let Some(remote) = remote::over_spdy(opened, wanted, gone).await {
                talk(remote).await;
            }
        };
        tokio::join!(serve, work);
    });
    Ok(response)
}

/// The protocol that client and server speak over SPDY.
pub fn spdy_protocol(headers: &HeaderMap, supported: &[&'static str]) -> Result<&'static str, Reply> {
    let wants = headers
        .get(UPGRADE)
        .and_then(|u| u.to_str().ok())
        .unwrap_or_default();
    if !wants.eq_ignore_ascii_case("SPDY/3.1") {
        let message = "unable to upgrade: missing upgrade headers in request";
        return Err(plain(StatusCode::BAD_REQUEST, message));
    }
    let offered: Vec<&str> = headers
        .get_all(STREAM_PROTOCOL)
        .into_iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    supported.iter().find(|s| offered.contains(s)).copied().ok_or_else(|| {
        let message = format!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {supported:?}");
        plain(StatusCode::FORBIDDEN, message)
    })
}

/// The answer that switches to SPDY.
pub fn spdy_accepted(protocol: &'static str) -> Result<Response<Body>, Reply> {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header(STREAM_PROTOCOL, protocol)
        .body(empty())
        .map_err(|error| plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

type Streams = (Option<Stream>, Option<Stream>, Option<Stream>);

/// Copies until all output has ended.
async fn copy((process_in, out, err): Streams, client_in: Option<mpsc::Receiver<Bytes>>, output: &Output) {
    let input = async {
        if let (Some(mut to), Some(mut from)) = (process_in, client_in) {
            while let Some(bytes) = from.recv().await {
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    break;
                }
            }
            // End of file; the process may have closed its side already.
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await
    };
    let outputs = async {
        tokio::join!(
            copy_output(out, Channel::Stdout, output),
            copy_output(err, Channel::Stderr, output)
        )
    };
    // Cancel-safe: input never ends by itself, so nothing is lost when the outputs do.
    tokio::select! {
        () = input => {}
        _ = outputs => {}
    }
}

async fn copy_output(stream: Option<Stream>, channel: Channel, output: &Output) {
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        buffer.reserve(CHUNK);
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if output.send(channel, buffer.split().freeze()).await.is_err() {
            return;
        }
    }
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn exit_status(code: i32) -> Value {
    if code == 0 {
        return success();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: error executing command in container: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": format!("error executing command in container: {message}")}]},
        "code": 500,
    })
}
