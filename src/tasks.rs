//! Long-lived tasks: all named, all joined. One that ends by itself, or panics, ends the service.

use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of one service.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<&'static str>,
    names: std::collections::HashMap<tokio::task::Id, &'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What tells all tasks to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task that runs until the stop token is cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(async move {
            task.await;
            name
        });
        self.names.insert(handle.id(), name);
    }

    /// Waits for a task to end although nobody asked it to; says which and how.
    pub async fn unexpected_end(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            Some(Ok(name)) => anyhow::anyhow!("task {name:?} ended by itself"),
            Some(Err(error)) => self.died(&error),
            None => std::future::pending().await,
        }
    }

    /// Tells all tasks to end and waits until they have.
    pub async fn end(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!("{}", self.died(&error));
            }
        }
    }

    fn died(&self, error: &tokio::task::JoinError) -> anyhow::Error {
        let name = self.names.get(&error.id()).copied().unwrap_or("?");
        anyhow::anyhow!("task {name:?} died: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_with_the_tasks_name() {
        let mut tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.spawn("steady", async move { stop.cancelled().await });
        tasks.spawn("broken", async { panic!("on purpose") });
        let error = tasks.unexpected_end().await.to_string();
        assert!(error.contains("\"broken\""), "{error}");
        tasks.end().await;
    }
}
