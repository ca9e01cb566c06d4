//! Client of the admin API.

use std::time::Duration;

use contract::http::Problem;
use reqwest::{Method, StatusCode};
use serde::Serialize;

use crate::{
    admin::State,
    fault::{FaultKind, FaultSpec},
    law::Law,
};

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("faultproxy did not answer")]
    Http(#[from] reqwest::Error),
    #[error("faultproxy refused ({status}): {detail}")]
    Refused { status: StatusCode, detail: String },
}

/// Cheap to clone. Every call takes at most 5 s.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// `url`: `http://host:port` of the admin API.
    ///
    /// # Errors
    /// The HTTP client could not be built.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// # Errors
    /// See `ClientError`; so for the calls below.
    pub async fn state(&self) -> Result<State, ClientError> {
        Ok(self.call(Method::GET, "/state", None::<&()>).await?.json().await?)
    }

    pub async fn set_law(&self, law: Law) -> Result<(), ClientError> {
        self.call(Method::PUT, "/law", Some(&law)).await.map(drop)
    }

    /// Replaces one of the same kind.
    pub async fn add_fault(&self, fault: impl Into<FaultSpec>) -> Result<(), ClientError> {
        self.call(Method::POST, "/faults", Some(&fault.into())).await.map(drop)
    }

    /// Lifts all faults.
    pub async fn clear(&self) -> Result<(), ClientError> {
        self.call(Method::DELETE, "/faults", None::<&()>).await.map(drop)
    }

    pub async fn lift(&self, kind: FaultKind) -> Result<(), ClientError> {
        self.call(Method::DELETE, &format!("/faults/{}", kind.as_str()), None::<&()>).await.map(drop)
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.call(Method::GET, "/metrics", None::<&()>).await?.text().await?)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
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
