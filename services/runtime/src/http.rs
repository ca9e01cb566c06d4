//! Clients of plain HTTP.

use reqwest::ClientBuilder;

/// A builder of clients that only speak `http://`, to addresses given as they are: no proxy, and no certificates. Every client of this
/// workspace begins here (`.clippy.toml` says so): the load generator's framework turns TLS on for all of reqwest, and a builder of
/// reqwest's own then reads the system's certificates and fails where there are none, as in a small image.
pub fn plain() -> ClientBuilder {
    builder().tls_certs_only([])
}

/// For an address that a user configured: `https://` is verified by the system's certificates.
pub fn client_for(url: &str) -> ClientBuilder {
    if url.starts_with("https://") { builder() } else { plain() }
}

#[expect(clippy::disallowed_methods, reason = "the one place that this is for")]
fn builder() -> ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
