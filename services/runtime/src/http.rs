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
