//! Somebody else's HTTP endpoint: its URL, the addresses that may be loaded, and the bounds of a load on another machine.
//!
//! The host is resolved once, by [`Endpoint::resolve`]. The load generator connects only to the addresses that were checked.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Stands for an id in a template.
pub const PLACE: &str = "{id}";
/// Most requests per second with `allow_remote`.
pub const MAX_REMOTE_PER_S: u32 = 5_000;
/// Longest measured part with `allow_remote`, in seconds.
pub const MAX_REMOTE_S: u32 = 3_600;
/// Longest warm-up with `allow_remote`, in milliseconds.
const MAX_REMOTE_WARM_UP_MS: u64 = 10_000;
const MAX_TEMPLATE_BYTES: usize = 2_048;
const MAX_ADDRESSES: usize = 16;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a step sends to an endpoint that is not the recommendations of our own gateway. Any response with status 2xx is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Path and query of each request. `{id}` stands for an id and occurs at most once.
    pub template: String,
    /// The only addresses that are connected to.
    pub addresses: Vec<SocketAddr>,
    /// Whether they may be addresses of other machines. The load is then bounded.
    pub allow_remote: bool,
}

/// A URL with a template of paths, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// See [`Target::template`].
    pub template: String,
    name: String,
    port: u16,
}

impl Endpoint {
    /// Parses `http://HOST[:PORT][/PATH][?QUERY]`.
    ///
    /// # Errors
    /// The URL has another form, such as https, or characters that must be percent-encoded.
    pub fn parse(url: &str) -> Result<Self> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let rest = match scheme.as_deref() {
            Some("http") => &url["http://".len()..],
            Some("https") => bail!(
                "{url} is https, and the load generator speaks plain HTTP only: put a proxy that ends TLS in front of the service, for example \
                 nginx or stunnel on this machine, and give its http:// address"
            ),
            _ => bail!("{url} must have the form http://HOST:PORT/PATH?QUERY"),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        ensure!(!authority.contains('@'), "{url} has a user name or password: the load generator sends none");
        let base = reqwest::Url::parse(&format!("http://{authority}/"));
        let base = base.with_context(|| format!("{authority:?} in {url} is no host"))?;
        let name = base.host_str().unwrap_or_default();
        ensure!(!name.is_empty(), "{url} has no host");
        let host = base.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let template = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        check_template(&template)?;
        let name = name.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, template, name, port: base.port_or_known_default().unwrap_or(80) })
    }

    /// Whether each request needs an id.
    pub fn has_id(&self) -> bool {
        self.template.contains(PLACE)
    }

    /// The plan's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// The addresses of the host, which this asks for once. Nothing is connected to.
    ///
    /// # Errors
    /// The host has no address, or none is known within 10 s.
    pub async fn resolve(self, allow_remote: bool) -> Result<Target> {
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((self.name.as_str(), self.port)));
        let found =
            found.await.with_context(|| format!("{} was not resolved within {RESOLVE_TIMEOUT:?}", self.name))?;
        let found = found.with_context(|| format!("cannot resolve {}", self.name))?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found.take(MAX_ADDRESSES) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        ensure!(!addresses.is_empty(), "host name {} has no address", self.name);
        Ok(Target { template: self.template, addresses, allow_remote })
    }
}

impl Target {
    /// Whether an address is not this machine's loopback.
    pub fn is_remote(&self) -> bool {
        self.remote_address().is_some()
    }

    /// The `Host` header.
    pub(crate) fn host(&self, base_url: &str) -> String {
        base_url.strip_prefix("http://").unwrap_or(base_url).trim_end_matches('/').to_owned()
    }

    /// Before and after the id; a template without an id has no second part.
    pub(crate) fn parts(&self) -> (&str, Option<&str>) {
        self.template.split_once(PLACE).map_or((&self.template, None), |(head, tail)| (head, Some(tail)))
    }

    /// Checks that the addresses may be loaded, and how much.
    ///
    /// # Errors
    /// An address is not loopback although `allow_remote` is not set, the load exceeds the bounds of `allow_remote`, or the template is not
    /// valid.
    pub(crate) fn check(&self, peak_per_s: f64, warm_up_ms: u64, measure_ms: u64) -> Result<()> {
        check_template(&self.template)?;
        ensure!(!self.addresses.is_empty(), "the target has no address");
        if !self.allow_remote {
            if let Some(remote) = self.remote_address() {
                bail!(
                    "{remote} is not a loopback address of this machine: give --allow-remote if you are permitted to load the service at \
                     {remote}"
                );
            }
            return Ok(());
        }
        ensure!(
            peak_per_s <= f64::from(MAX_REMOTE_PER_S),
            "with --allow-remote at most {MAX_REMOTE_PER_S} requests/s are sent, and {peak_per_s:.0} are planned"
        );
        ensure!(
            measure_ms <= u64::from(MAX_REMOTE_S) * 1000 && warm_up_ms <= MAX_REMOTE_WARM_UP_MS,
            "with --allow-remote a load lasts at most {MAX_REMOTE_S} s after at most {} s of warm-up, and {} s after {} s are planned",
            MAX_REMOTE_WARM_UP_MS / 1000,
            measure_ms.div_ceil(1000),
            warm_up_ms.div_ceil(1000)
        );
        Ok(())
    }

    fn remote_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().copied().find(|address| !is_loopback(address.ip()))
    }
}

/// Checks the base URL of our own gateway: plain HTTP to a loopback address.
///
/// # Errors
/// It is not.
pub(crate) fn check_own(base_url: &str) -> Result<()> {
    let base = reqwest::Url::parse(base_url).with_context(|| format!("base_url {base_url:?}"))?;
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse::<IpAddr>().is_ok_and(is_loopback);
    ensure!(
        base.scheme() == "http" && loopback,
        "base_url {base_url:?} must be a loopback address such as http://127.0.0.1:8080"
    );
    ensure!(
        base.query().is_none() && base.fragment().is_none(),
        "base_url {base_url:?} must not have a query or a fragment"
    );
    Ok(())
}

fn is_loopback(address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is 127.0.0.1.
    address.to_canonical().is_loopback()
}

/// It becomes part of the request's head as it is, so that it must not contain a space or a line break.
fn check_template(template: &str) -> Result<()> {
    let (head, tail) = template.split_once(PLACE).unwrap_or((template, ""));
    ensure!(!tail.contains(PLACE), "{template} has more than one {PLACE}");
    let bad =
        [head, tail].into_iter().flat_map(str::chars).find(|c| !c.is_ascii_graphic() || "{}<>\"\\^`|#".contains(*c));
    if let Some(bad) = bad {
        bail!(
            "{bad:?} in {template} must be percent-encoded; only {PLACE} is replaced, by an id, and a fragment is never sent"
        );
    }
    ensure!(head.starts_with('/'), "{template} must begin with a slash");
    ensure!(template.len() <= MAX_TEMPLATE_BYTES, "the path has more than {MAX_TEMPLATE_BYTES} bytes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addresses: &[&str], allow_remote: bool) -> Target {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Target { template: "/".into(), addresses, allow_remote }
    }

    #[test]
    fn a_url_has_a_host_and_a_template() {
        for (url, host, template, name, port) in [
            ("http://127.0.0.1:8080/a?x={id}&y=1", "127.0.0.1:8080", "/a?x={id}&y=1", "127.0.0.1", 8080),
            ("HTTP://Example.org", "example.org", "/", "example.org", 80),
            ("http://[::1]:81?q={id}", "[::1]:81", "/?q={id}", "::1", 81),
            ("http://localhost/%7Bid%7D", "localhost", "/%7Bid%7D", "localhost", 80),
        ] {
            let parsed = Endpoint::parse(url).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.template.as_str()), (host, template), "{url}");
            assert_eq!((parsed.name.as_str(), parsed.port), (name, port), "{url}");
            assert_eq!(parsed.has_id(), template.contains("{id}"), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_with_the_reason() {
        for (url, reason) in [
            ("https://127.0.0.1", "proxy that ends TLS"),
            ("HTTPS://127.0.0.1", "proxy that ends TLS"),
            ("ftp://127.0.0.1", "must have the form http://HOST:PORT"),
            ("127.0.0.1:80", "must have the form http://HOST:PORT"),
            ("http://", "is no host"),
            ("http://a b/", "is no host"),
            ("http://user:secret@127.0.0.1/", "user name or password"),
            ("http://127.0.0.1/#part", "fragment"),
            ("http://127.0.0.1/{id}/{id}", "more than one {id}"),
            ("http://127.0.0.1/{user}", "'{' in /{user}"),
            ("http://127.0.0.1/a b", "' ' in /a b"),
            ("http://127.0.0.1/a\r\nx: y", "'\\r' in"),
            ("http://127.0.0.1/ü", "'ü' in"),
            (&format!("http://127.0.0.1/{}", "a".repeat(2048)), "more than 2048 bytes"),
        ] {
            let error = format!("{:#}", Endpoint::parse(url).unwrap_err());
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn without_the_flag_every_address_must_be_loopback() {
        for good in [&["127.0.0.1:80"][..], &["127.9.9.9:1", "[::1]:1"], &["[::ffff:127.0.0.1]:80"]] {
            target(good, false).check(20_000.0, 600_000, 14_400_000).unwrap();
        }
        for bad in ["192.0.2.1:80", "0.0.0.0:80", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80", "10.0.0.1:80"] {
            let two = target(&["127.0.0.1:80", bad], false);
            let error = two.check(1.0, 0, 1000).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("--allow-remote"), "{error}");
            assert!(two.is_remote());
            target(&[bad], true).check(1.0, 0, 1000).unwrap();
        }
        assert!(target(&[], true).check(1.0, 0, 1000).is_err());
    }

    #[test]
    fn with_the_flag_the_load_is_bounded() {
        let remote = target(&["192.0.2.1:80"], true);
        remote.check(5_000.0, 10_000, 3_600_000).unwrap();
        for (per_s, warm_up_ms, measure_ms, reason) in [
            (5_000.5, 0, 1000, "at most 5000 requests/s"),
            (1.0, 0, 3_600_001, "at most 3600 s after at most 10 s of warm-up, and 3601 s"),
            (1.0, 10_001, 1000, "1 s after 11 s are planned"),
        ] {
            let error = remote.check(per_s, warm_up_ms, measure_ms).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[tokio::test]
    async fn a_host_is_resolved_once_to_its_addresses() {
        let resolved = Endpoint::parse("http://127.0.0.1:1/x").unwrap().resolve(false).await.unwrap();
        assert_eq!(resolved, Target { template: "/x".into(), ..target(&["127.0.0.1:1"], false) });
        let error = Endpoint::parse("http://nowhere.invalid/").unwrap().resolve(true).await.unwrap_err();
        assert!(error.to_string().contains("nowhere.invalid"), "{error}");
    }
}
