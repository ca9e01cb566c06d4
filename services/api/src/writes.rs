//! Runs sign-ups and events: a bounded number at a time, and each to its end.
//!
//! A write tells the other replicas and clears the caches after the store has committed. A client that hangs up must not cancel it in
//! between: the old list would stay fresh for an hour.

use std::time::Duration;

use runtime::telemetry::Span;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{AppState, error::ApiError};

/// How long a write waits for the store, whether a client still waits or not. It keeps its place among the admitted writes for as long, so
/// that the work behind the answers is bounded.
pub const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the write in a task of its own once it is admitted. The replica waits for the task when it stops. A client that hangs up before
/// the admission leaves the line.
///
/// # Errors
/// `Overloaded`: the write has not begun. `Deadline`: the write goes on. Otherwise the write's own error.
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
    let (of_task, span) = (app.clone(), span.clone());
    app.tasks.spawn(async move {
        let admitted = tokio::select! {
            admitted = of_task.writes.enter(deadline, &span) => admitted,
            () = answer.closed() => return,
        };
        let result = match admitted {
            Ok(_admitted) => write(of_task.clone(), span).await,
            Err(error) => Err(error),
        };
        // Fails if the client has gone.
        answer.send(result).ok();
    });
    match timeout_at(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panicked)) => Err(ApiError::Internal),
        Err(_elapsed) => Err(ApiError::Deadline(deadline_ms)),
    }
}
