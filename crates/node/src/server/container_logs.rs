//! `/containerLogs/NAMESPACE/POD/CONTAINER`. Upstream: `getContainerLogs` in `pkg/kubelet/server/server.go`.

use super::query::Query;
use super::{Body, Reply, plain};
use crate::kubelet::Kubelet;
use crate::logs::{self, Options, Source};
use crate::pod_view::PodView;
use coracle_reconcile::Key;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks that wait for the client.
const QUEUE: usize = 4;

/// Answers with the log as it is read.
pub fn serve(
    kubelet: &Arc<Kubelet>,
    view: &PodView,
    container: &str,
    query: &str,
) -> Result<Response<Body>, Reply> {
    let query = Query::parse(query);
    let options = options(&query).map_err(|message| plain(StatusCode::UNPROCESSABLE_ENTITY, message))?;
    let previous = query.flag(&["previous"]);
    let attempt =
        attempt(view, container, previous).map_err(|message| plain(StatusCode::BAD_REQUEST, message))?;
    let path = kubelet
        .log_dir(&view.pod)
        .join(container)
        .join(format!("{attempt}.log"));
    if previous && !path.exists() {
        return Err(plain(StatusCode::BAD_REQUEST, no_previous(view, container)));
    }
    let (sender, chunks) = mpsc::channel(QUEUE);
    let kubelet = kubelet.clone();
    let meta = &view.pod.metadata;
    let key = Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let (uid, container) = (view.uid().to_owned(), container.to_owned());
    tokio::spawn(async move {
        let alive = || {
            kubelet.views.get(&key).is_some_and(|view| {
                let mut containers = view.containers.iter();
                view.uid() == uid
                    && containers
                        .any(|c| c.name == container && c.running.is_some() && c.attempt == Some(attempt))
            })
        };
        let source = Source {
            path,
            watch: &kubelet.log_watch,
            alive: &alive,
            changed: &kubelet.views.changed,
        };
        if let Err(error) = logs::stream(source, options, sender).await {
            tracing::debug!(pod = %key, container, %error, "log not read to its end");
        }
    });
    let stream = futures::stream::unfold(chunks, |mut chunks| async {
        let chunk = chunks.recv().await?;
        Some((Ok(Frame::data(chunk)), chunks))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Which instance's log is meant. The error is for the client.
fn attempt(view: &PodView, container: &str, previous: bool) -> Result<i32, String> {
    let name = view.pod.metadata.name.as_deref().unwrap_or_default();
    let found = view.containers.iter().find(|c| c.name == container);
    let found = found.ok_or_else(|| format!("container {container:?} not found in pod {name:?}"))?;
    match (found.attempt, previous) {
        (Some(attempt), false) => Ok(attempt),
        (Some(attempt), true) if attempt > 0 => Ok(attempt - 1),
        (_, true) => Err(no_previous(view, container)),
        (None, false) => {
            let reason = found.waiting.as_deref().unwrap_or("ContainerCreating");
            let reason = match reason {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            Err(format!(
                "container {container:?} in pod {name:?} is waiting to start: {reason}"
            ))
        }
    }
}

fn no_previous(view: &PodView, container: &str) -> String {
    let name = view.pod.metadata.name.as_deref().unwrap_or_default();
    format!("previous terminated container {container:?} in pod {name:?} not found")
}

fn options(query: &Query) -> Result<Options, String> {
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("{name}: Invalid value: {text:?}: must be greater than or equal to 0")),
    };
    let since_seconds = number("sinceSeconds")?;
    let since_time = match query.get("sinceTime") {
        None => None,
        Some(text) => {
            let parsed = text.parse::<Timestamp>();
            Some(parsed.map_err(|error| format!("sinceTime: Invalid value: {text:?}: {error}"))?)
        }
    };
    let since = match since_seconds {
        Some(seconds) => {
            let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN))
        }
        None => since_time,
    };
    Ok(Options {
        follow: query.flag(&["follow"]),
        tail: number("tailLines")?,
        since,
        timestamps: query.flag(&["timestamps"]),
        limit_bytes: number("limitBytes")?,
        stream: query.get("stream").filter(|s| *s != "All").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_view::ContainerView;

    fn view(attempt: Option<i32>, waiting: Option<&str>) -> PodView {
        let container = ContainerView {
            name: "app".into(),
            running: None,
            attempt,
            waiting: waiting.map(str::to_owned),
        };
        let mut pod = k8s_openapi::api::core::v1::Pod::default();
        pod.metadata.name = Some("web".into());
        PodView {
            pod: Arc::new(pod),
            status: Default::default(),
            containers: vec![container],
        }
    }

    #[test]
    fn the_right_instance_is_chosen() {
        let of = |attempt_, waiting, previous| attempt(&view(attempt_, waiting), "app", previous);
        assert_eq!(of(Some(2), None, false), Ok(2));
        assert_eq!(of(Some(2), Some("CrashLoopBackOff"), true), Ok(1));
        assert_eq!(
            of(Some(0), None, true),
            Err("previous terminated container \"app\" in pod \"web\" not found".into())
        );
        assert_eq!(
            of(None, Some("ImagePullBackOff"), false),
            Err(
                "container \"app\" in pod \"web\" is waiting to start: trying and failing to pull image"
                    .into()
            )
        );
        assert!(attempt(&view(Some(0), None), "other", false).is_err());
    }

    #[test]
    fn options_are_read() {
        let read = |text: &str| options(&Query::parse(text));
        let options =
            read("follow=true&tailLines=5&timestamps=true&limitBytes=9&sinceTime=2026-01-01T00%3A00%3A00Z")
                .expect("valid");
        assert_eq!(
            (options.follow, options.tail, options.limit_bytes),
            (true, Some(5), Some(9))
        );
        assert_eq!(options.since, "2026-01-01T00:00:00Z".parse().ok());
        assert!(read("sinceSeconds=60").expect("valid").since.is_some());
        assert!(read("tailLines=-1").is_err() && read("sinceTime=yesterday").is_err());
    }
}
