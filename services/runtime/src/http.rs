//! HTTP clients.

use reqwest::ClientBuilder;

/// A builder for clients of `http://` without proxy and certificates. All clients of this workspace use this module (`.clippy.toml`
/// enforces it): the load generator's framework enables TLS for all of reqwest. reqwest's own builder then reads the system's certificates,
/// and fails in a small image without them.
pub fn plain() -> ClientBuilder {
    builder().tls_certs_only([])
}

/// For a URL that the user configured. `https://` is verified with the system's certificates.
pub(crate) fn client_for(url: &str) -> ClientBuilder {
    if url.starts_with("https://") { builder() } else { plain() }
}

#[expect(clippy::disallowed_methods, reason = "this module is the one place that may use it")]
fn builder() -> ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

/// Why a response body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the response body has more than {0} bytes")]
    TooLong(usize),
    #[error("the response body ended early")]
    Incomplete(#[from] reqwest::Error),
}

/// A response body of at most `max_bytes`: the server may be another process than expected.
///
/// # Errors
/// See `BodyError`.
pub async fn body_within(mut response: reqwest::Response, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(BodyError::TooLong(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
