//! The parts of a cluster as tasks, watched over: the end of one that must not end is the end of the cluster.

use std::future::Future;
use tokio::task::JoinSet;

/// The tasks of a cluster.
#[derive(Default)]
pub struct Tasks {
    running: JoinSet<&'static str>,
}

impl Tasks {
    /// Starts a part that runs as long as the cluster does.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Resolves when a part has ended or panicked, with its name where that is known.
    pub async fn first_end(&mut self) -> String {
        match self.running.join_next().await {
            Some(Ok(name)) => name.to_owned(),
            Some(Err(error)) => format!("a part that failed: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Resolves when all parts have ended by themselves.
    pub async fn all_ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    /// Ends all parts and waits until they are gone.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
    }
}
