//! Client of what can be asked.

use std::time::Duration;

use contract::http::Problem;
use reqwest::{Method, StatusCode};

use crate::{
    Choice, Summary, Trace, TraceId,
    query::{List, MAX_LIMIT},
};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the trace store does not answer")]
    Http(#[from] reqwest::Error),
    #[error("the trace store refused ({status}): {detail}")]
    Refused { status: StatusCode, detail: String },
}

/// Cheap to clone. Every call takes at most 5 s.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// `url`: `http://host:port` of the admin port.
    ///
    /// # Errors
    /// The HTTP client could not be built.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// # Errors
    /// See `ClientError`; so for the calls below.
    pub async fn list(&self, choice: Choice, limit: usize) -> Result<Vec<Summary>, ClientError> {
        let path = format!("/traces?choice={}&limit={limit}", choice.as_str());
        let list: List = self.call(Method::GET, &path).await?.json().await?;
        Ok(list.traces)
    }

    /// `None`: it is not kept.
    pub async fn trace(&self, id: TraceId) -> Result<Option<Trace>, ClientError> {
        match self.call(Method::GET, &format!("/traces/{id}")).await {
            Ok(answer) => Ok(Some(answer.json().await?)),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that are there, newest first.
    pub async fn all(&self) -> Result<Vec<Trace>, ClientError> {
        let mut traces = Vec::new();
        for summary in self.list(Choice::Newest, MAX_LIMIT).await? {
            // One may make room for another meanwhile.
            traces.extend(self.trace(summary.id).await?);
        }
        Ok(traces)
    }

    /// Forgets all traces.
    pub async fn clear(&self) -> Result<(), ClientError> {
        self.call(Method::DELETE, "/traces").await.map(drop)
    }

    async fn call(&self, method: Method, path: &str) -> Result<reqwest::Response, ClientError> {
        let response = self.http.request(method, format!("{}{path}", self.url)).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // Something else may answer on that port: its text is cut short.
        let text = response.text().await?;
        let detail = match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => problem.detail,
            Err(_) => text.chars().take(200).collect(),
        };
        Err(ClientError::Refused { status, detail })
    }
}
