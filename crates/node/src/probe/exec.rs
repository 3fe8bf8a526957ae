//! Exec probes and hooks: a command in the container. Upstream: `pkg/probe/exec`.

use super::MAX_OUTPUT;
use crate::kubelet::{Kubelet, describe};
use coracle_oci::{ExecSpec, Stream};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Runs the command; succeeds if it exits with 0 in time. The error is what it printed.
pub async fn run(kubelet: &Kubelet, id: &str, command: Vec<String>, timeout: Duration) -> Result<(), String> {
    let shown = command.join(" ");
    let spec = ExecSpec {
        argv: command,
        ..ExecSpec::default()
    };
    let work = async {
        let mut session = kubelet
            .runtime
            .exec(id, spec)
            .await
            .map_err(|error| describe(&error))?;
        let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
        let (code, out, err) = tokio::join!(session.wait(), read(stdout), read(stderr));
        match code {
            Ok(0) => Ok(()),
            Ok(code) if out.is_empty() && err.is_empty() => {
                Err(format!("command {shown:?} exited with code {code}"))
            }
            Ok(_) => Err(out + &err),
            Err(error) => Err(describe(&error)),
        }
    };
    // Dropping the session kills the process.
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "command timed out: {shown:?} timed out after {}s",
            timeout.as_secs()
        )),
    }
}

/// The beginning of what the stream says. The rest is read too: a full pipe would stop the process.
async fn read(stream: Option<Stream>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let room = MAX_OUTPUT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
