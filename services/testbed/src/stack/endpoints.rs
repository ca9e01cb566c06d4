//! A stack that another program has started, such as `docker compose`. A file of addresses replaces the `stack.json` of `up`, so that
//! `load`, `fault` and `data` work on both.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use launcher::{Description, ProcessIdentity};

/// The name of such a stack.
pub const ELSEWHERE: &str = "elsewhere";
/// Environment variable that names the file: TOML, a name and an address per line. The names are as in `status --json` of a stack
/// of `up`, except that `api-admin` names all replicas: each address of its host name is a replica (`replicas`).
pub const VARIABLE: &str = "TESTBED_ENDPOINTS";
const REPLICAS: &str = "api-admin";
/// Every command needs these.
const NEEDED: [&str; 2] = ["gateway", "faultproxy"];

/// The stack that the environment names; `None` without the variable. No name is resolved: `data prepare` runs before the replicas do,
/// and `fault` and `status` must work while none of them does.
///
/// # Errors
/// The file cannot be read or lacks an address.
pub fn elsewhere() -> anyhow::Result<Option<Description>> {
    let Some(file) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let file = Path::new(&file);
    let read = || parse(&std::fs::read_to_string(file)?);
    let endpoints = read().with_context(|| format!("{VARIABLE}={}", file.display()))?;
    Ok(Some(Description {
        name: ELSEWHERE.into(),
        owner: ProcessIdentity::current(),
        created_ms: 0,
        endpoints,
        sockets: PathBuf::new(),
        cgroups: Vec::new(),
        children: Vec::new(),
    }))
}

/// Admin ports of a stack's replicas, `http://address:port`, as they are now.
///
/// # Errors
/// Their name has no address: no replica runs.
pub fn replicas(stack: &Description) -> anyhow::Result<Vec<String>> {
    replicas_by(&stack.endpoints, |host| Ok(host.to_socket_addrs()?.collect()))
}

/// Endpoints of the processes of one kind, which are called `kind-N`: name and address.
pub fn numbered<'a>(
    endpoints: &'a BTreeMap<String, String>,
    kind: &'static str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let number = move |name: &'a str| name.strip_prefix(kind)?.strip_prefix('-');
    let is_numbered = move |name: &'a str| number(name).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    endpoints.iter().map(|(name, address)| (name.as_str(), address.as_str())).filter(move |(name, _)| is_numbered(name))
}

/// MySQL servers of a stack, `host:port`, in the order of their numbers: that in which the shards are dealt to them.
pub fn mysql_servers(stack: &Description) -> Vec<String> {
    numbered(&stack.endpoints, "mysql").map(|(_, address)| address.to_owned()).collect()
}

fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let endpoints: BTreeMap<String, String> = toml::from_str(text)?;
    for name in NEEDED {
        ensure!(endpoints.contains_key(name), "there is no line {name} = \"http://…\"");
    }
    Ok(endpoints)
}

/// `api-0-admin = "http://127.0.0.1:9080"`, …, or `api-admin = "http://api:9080"` → `http://10.0.0.5:9080`, …
fn replicas_by(
    endpoints: &BTreeMap<String, String>,
    resolve: impl FnOnce(&str) -> std::io::Result<Vec<SocketAddr>>,
) -> anyhow::Result<Vec<String>> {
    let Some(url) = endpoints.get(REPLICAS) else {
        let named = endpoints.iter().filter(|(name, _)| name.starts_with("api-"));
        return Ok(named.map(|(_, address)| address.clone()).collect());
    };
    let host = url.strip_prefix("http://").with_context(|| format!("{REPLICAS}: {url:?} is not http://host:port"))?;
    let addresses =
        resolve(host).with_context(|| format!("{REPLICAS}: cannot resolve {host:?}: does no replica run?"))?;
    Ok(addresses.into_iter().map(|address| format!("http://{address}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "gateway = \"http://127.0.0.1:8080\"\nfaultproxy = \"http://faultproxy:9090\"\n\
                        api-admin = \"http://api:9080\"\nmysql-01 = \"b:3306\"\nmysql-00 = \"a:3306\"\n";

    #[test]
    fn every_address_of_the_name_is_a_replica() {
        let two = ["10.0.0.5:9080", "[fd00::5]:9080"].map(|address| address.parse().unwrap());
        let endpoints = parse(TEXT).unwrap();
        let replicas = replicas_by(&endpoints, |host| {
            assert_eq!(host, "api:9080");
            Ok(two.to_vec())
        });
        assert_eq!(replicas.unwrap(), ["http://10.0.0.5:9080", "http://[fd00::5]:9080"]);
        let stack = Description {
            name: String::new(),
            owner: ProcessIdentity::current(),
            created_ms: 0,
            endpoints,
            sockets: PathBuf::new(),
            cgroups: Vec::new(),
            children: Vec::new(),
        };
        assert_eq!(mysql_servers(&stack), ["a:3306", "b:3306"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(parse("gateway = \"x\"").unwrap_err().to_string().contains("faultproxy"));
        assert!(parse("gateway = 1\nfaultproxy = \"x\"").is_err());
        let refused =
            |text: &str| replicas_by(&parse(text).unwrap(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(refused(TEXT).to_string().contains("api:9080"));
        let error = refused(&TEXT.replace("http://api:9080", "api:9080"));
        assert!(error.to_string().contains("not http://host:port"), "{error}");
    }

    #[test]
    fn replicas_of_our_own_are_known_by_address() {
        let text = "gateway = \"g\"\nfaultproxy = \"f\"\napi-0-admin = \"http://127.0.0.1:1\"\napi-1-admin = \"http://127.0.0.1:2\"\n";
        let replicas = replicas_by(&parse(text).unwrap(), |_| panic!("nothing to resolve"));
        assert_eq!(replicas.unwrap(), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    }
}
