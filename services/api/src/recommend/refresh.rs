//! Background refresh of lists shortly before they expire (`guards.refresh_ahead`).

use std::sync::Arc;

use contract::{UserId, http::Criticality, keys, spans::name};
use lists::RankedList;
use runtime::telemetry::{Kind, Span};
use tokio::time::Instant;

use super::{
    guard::UserStatus,
    load::{LoadRequest, load},
};
use crate::{AppState, deadline::Deadline};

/// While one replica has the lease, the others do not refresh the list. After a failure the lease is the back-off.
const LEASE_MS: u64 = 10_000;

/// Starts a load in the background if the list, a hit, expires soon. A lease limits it to one replica. So a list in demand never expires,
/// and no request waits for it.
pub fn refresh_ahead(app: &AppState, user_id: &UserId, list: &RankedList, now_ms: u64, span: &Span) {
    let left_ms = list.fresh_until_ms().saturating_sub(now_ms);
    if left_ms >= app.config.cache.refresh_ahead_ms || !app.memory.may_try_refresh(user_id) {
        return;
    }
    let Ok(permit) = Arc::clone(&app.loads.refreshes).try_acquire_owned() else {
        app.metrics.loads.refresh_dropped.inc();
        return;
    };
    let (app, user_id) = (app.clone(), user_id.clone());
    let refreshing = span.child(Kind::Internal, name::REFRESH_AHEAD);
    app.clone().tasks.spawn(async move {
        let _permit = permit;
        let deadline = Deadline::after(Instant::now(), app.config.http.deadline_ms);
        let lease = redis::cmd("SET")
            .arg(keys::refresh_lease(user_id.as_str()))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(LEASE_MS)
            .query_async::<Option<String>>(&mut app.redis.until(deadline.at, &refreshing))
            .await;
        if !matches!(lease, Ok(Some(_))) {
            app.metrics.loads.refresh_taken.inc();
            return;
        }
        let limit = app.config.cache.items;
        // No request waits for it.
        let criticality = Criticality::Sheddable;
        let request = LoadRequest { user_id, limit, user_status: UserStatus::MayExist, deadline, criticality };
        match load(&app, request, &refreshing).await {
            Ok(_) => app.metrics.loads.refresh_ok.inc(),
            Err(_counted) => app.metrics.loads.refresh_failed.inc(),
        }
    });
}
