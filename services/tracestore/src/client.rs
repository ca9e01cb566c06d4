//! Client of the queries.

use reqwest::StatusCode;
use runtime::{AdminClient, client::ClientError};

use crate::{
    Selection, Summary, Trace, TraceId,
    query::{List, MAX_LIMIT},
};

/// Cheap to clone. Each request has a timeout of 5 s.
#[derive(Debug, Clone)]
pub struct Client(AdminClient);

impl Client {
    /// `url`: `http://host:port` of the admin port.
    ///
    /// # Errors
    /// The HTTP client could not be built.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        AdminClient::new("the trace store", url).map(Self)
    }

    /// # Errors
    /// See `ClientError`; this applies to all methods below.
    pub async fn list(&self, choice: Selection, limit: usize) -> Result<Vec<Summary>, ClientError> {
        let list: List = self.0.json(&format!("/traces?choice={}&limit={limit}", choice.as_str())).await?;
        Ok(list.traces)
    }

    /// `None`: the trace is not kept.
    pub async fn trace(&self, id: TraceId) -> Result<Option<Trace>, ClientError> {
        match self.0.json(&format!("/traces/{id}")).await {
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// All traces in the store, newest first.
    pub async fn all(&self) -> Result<Vec<Trace>, ClientError> {
        let mut traces = Vec::new();
        for summary in self.list(Selection::Newest, MAX_LIMIT).await? {
            // A trace may be evicted in between.
            traces.extend(self.trace(summary.id).await?);
        }
        Ok(traces)
    }

    /// Removes all traces.
    pub async fn clear(&self) -> Result<(), ClientError> {
        self.0.delete("/traces").await
    }
}
