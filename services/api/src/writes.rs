//! Runs sign-ups and event requests: a bounded number at a time, and each to completion.
//!
//! After the store has committed, a write informs the other replicas and clears the caches. A client that disconnects must not cancel it
//! in between: the old list would stay fresh for an hour.

use std::time::Duration;

use contract::http::Criticality;
use runtime::telemetry::Span;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{AppState, error::ApiError};

/// How long a write waits for the store, even if its client has left. It stays admitted until it ends, so that background writes are
/// bounded.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the write in a separate task after admission. A replica that stops waits for the task. A client that disconnects before admission
/// leaves the queue.
///
/// # Errors
/// `Overloaded`: the write was not started. `Deadline`: the write continues. Otherwise the error of the write.
pub async fn run_to_completion<T, F>(
    app: &AppState,
    span: &Span,
    write: impl FnOnce(AppState, Span) -> F + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send,
{
    let deadline_ms = app.config.http.deadline_ms;
    let deadline = Instant::now() + Duration::from_millis(deadline_ms);
    let (mut answer, answered) = oneshot::channel();
    let (task_app, span) = (app.clone(), span.clone());
    app.tasks.spawn(async move {
        let admitted = tokio::select! {
            admitted = task_app.writes.enter(deadline, Criticality::Default, &span) => admitted,
            () = answer.closed() => return,
        };
        let result = match admitted {
            Ok(_admitted) => write(task_app.clone(), span).await,
            Err(error) => Err(error),
        };
        // Fails if the client has disconnected.
        answer.send(result).ok();
    });
    match timeout_at(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panicked)) => Err(ApiError::Internal),
        Err(_elapsed) => Err(ApiError::Deadline(deadline_ms)),
    }
}
