//! The requests for segments that workers answer.
//!
//! ```text
//! GET /segments/{n}/manifest                the primary's version; another worker redirects to it (307)
//! GET /segments/{n}/manifest?holder=true    the copy of this worker
//! GET /segments/{n}/blocks/{content}        Range: bytes=FIRST-LAST, at most 1 MiB; any holder of this version
//! ```

use std::{ops::Range, time::Duration};

use contract::{SegmentId, http::Problem};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{IF_NONE_MATCH, LOCATION, RANGE},
    redirect::Policy,
};
use segments::{Digest, MAX_MANIFEST_BYTES, Manifest};

use super::{failure::Failure, file::Held};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a manifest or a range; each has about 2 MiB at most.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A problem document is shorter; an unrelated server may use the port.
const MAX_PROBLEM_BYTES: usize = 16 << 10;

/// Which version of a segment a worker is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// That of the primary, which is the newest.
    Primary,
    /// The worker's own copy, which may be older.
    Holder,
}

#[derive(Debug)]
pub enum Answer {
    Manifest(Manifest),
    /// It is the version held.
    Unchanged,
    /// The address of the primary, as the worker knows it.
    Redirect(String),
}

#[derive(Debug)]
pub struct WorkerClient {
    http: Client,
}

impl WorkerClient {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new() -> reqwest::Result<Self> {
        let http = runtime::http::plain().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        // The reader follows redirects: it must know which of the two workers does not answer.
        Ok(Self { http: http.redirect(Policy::none()).build()? })
    }

    /// # Errors
    /// The worker does not answer, has no version, or its answer is not valid.
    pub async fn manifest(
        &self,
        address: &str,
        segment: SegmentId,
        ask: Ask,
        held: Option<&Held>,
    ) -> Result<Answer, Failure> {
        let query = match ask {
            Ask::Primary => "",
            Ask::Holder => "?holder=true",
        };
        let mut request = self.http.get(format!("http://{address}/segments/{}/manifest{query}", segment.number()));
        if let Some(held) = held {
            request = request.header(IF_NONE_MATCH, &held.etag);
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::OK => {
                let bytes = runtime::http::body_within(response, MAX_MANIFEST_BYTES).await?;
                Ok(Answer::Manifest(Manifest::decode(&bytes, segment)?))
            }
            StatusCode::NOT_MODIFIED if held.is_some() => Ok(Answer::Unchanged),
            StatusCode::TEMPORARY_REDIRECT if ask == Ask::Primary => redirect(&response).map(Answer::Redirect),
            _ => Err(refused(response).await),
        }
    }

    /// The bytes `range` of the version's file, exactly as many; not verified yet.
    ///
    /// # Errors
    /// The worker does not answer, has another version, found a block damaged, or its answer is not valid.
    pub async fn range(
        &self,
        address: &str,
        segment: SegmentId,
        content: &Digest,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Failure> {
        let url = format!("http://{address}/segments/{}/blocks/{content}", segment.number());
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let response = self.http.get(url).header(RANGE, bytes).send().await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(refused(response).await);
        }
        let length = range.end.saturating_sub(range.start) as usize;
        let bytes = runtime::http::body_within(response, length).await?;
        if bytes.len() != length {
            return Err(Failure::Invalid(format!("{} bytes instead of {length}", bytes.len())));
        }
        Ok(bytes)
    }
}

fn redirect(response: &Response) -> Result<String, Failure> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let url = location.and_then(|location| Url::parse(location).ok()).filter(|url| url.scheme() == "http");
    let address = url.as_ref().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    address.ok_or_else(|| Failure::Invalid(format!("a redirect to '{}'", location.unwrap_or_default())))
}

async fn refused(response: Response) -> Failure {
    let status = response.status();
    let body = runtime::http::body_within(response, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    let (kind, detail) = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => (problem.kind, problem.detail),
        Err(_) => (String::new(), "the answer is no problem document".to_owned()),
    };
    Failure::Refused { status, kind, detail }
}
