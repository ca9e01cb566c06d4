//! Client of the admin port of another process.

use std::time::Duration;

use contract::http::Problem;
use reqwest::{Method, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest text of a response that is not a problem document; an unrelated server may use the port.
const MAX_DETAIL_CHARS: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{server} does not answer")]
    Http { server: &'static str, source: reqwest::Error },
    #[error("{server} refused the request ({status}): {detail}")]
    Refused { server: &'static str, status: StatusCode, detail: String },
}

/// Cheap to clone. Every call takes at most 5 s.
#[derive(Debug, Clone)]
pub struct AdminClient {
    server: &'static str,
    http: reqwest::Client,
    url: String,
}

impl AdminClient {
    /// `server` is its name in errors, `url` is `http://host:port`.
    ///
    /// # Errors
    /// The HTTP client could not be built.
    pub fn new(server: &'static str, url: &str) -> Result<Self, ClientError> {
        let http = crate::http::plain().timeout(TIMEOUT).build();
        let http = http.map_err(|source| ClientError::Http { server, source })?;
        Ok(Self { server, http, url: url.trim_end_matches('/').to_owned() })
    }

    /// # Errors
    /// See `ClientError`, also for the methods below.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.send(self.http.get(self.at(path))).await?;
        answer.json().await.map_err(|error| self.failed(error))
    }

    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.send(self.http.get(self.at(path))).await?;
        answer.text().await.map_err(|error| self.failed(error))
    }

    pub async fn write(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.send(self.http.request(method, self.at(path)).json(body)).await.map(drop)
    }

    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.http.delete(self.at(path))).await.map(drop)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn failed(&self, source: reqwest::Error) -> ClientError {
        ClientError::Http { server: self.server, source }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let detail = match response.bytes().await.map_err(|error| self.failed(error))? {
            text if let Ok(problem) = serde_json::from_slice::<Problem>(&text) => problem.detail,
            text => String::from_utf8_lossy(&text).chars().take(MAX_DETAIL_CHARS).collect(),
        };
        Err(ClientError::Refused { server: self.server, status, detail })
    }
}
