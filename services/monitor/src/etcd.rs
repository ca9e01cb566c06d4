//! Step 4 of a heartbeat's path: the registry in etcd. Every request is one transaction, or one round trip that changes nothing:
//!
//! | key | value | changed by |
//! |---|---|---|
//! | `leader` | the leading monitor's name, under its lease; the key's create revision is the term | `Campaign`, the lease's end |
//! | `monitors` | the `Monitors` whose votes count | `SetMonitors`, if the version is later |
//! | `nodes/<id>` | a `Registration` | `Register`, if it supersedes the known one; `Forget`, if it is the known one |
//! | `table` | the whole `Table` | `Commit`, if the term, the monitors and the table have not changed since they were read |

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, KvClient, PutOptions, Txn, TxnOp, WatchOptions,
};
use heartbeat::{
    assign::{NodeId, Table},
    registry::{Leader, Monitors, Registration, Request, Response, Snapshot, is_same, supersedes},
};
use tokio::sync::Mutex;

/// Timeout of a request to etcd.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// Interval of HTTP/2 pings: they notice a dead server behind a quiet watch.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Attempts to register: another monitor may change the key between read and write.
const REGISTER_TRIES: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("etcd did not answer within {TIMEOUT:?}")]
    Timeout,
    #[error("etcd failed")]
    Etcd(#[from] etcd_client::Error),
    #[error("the value of {key} is not valid")]
    Value {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the same worker was registered {REGISTER_TRIES} times concurrently")]
    Contended,
}

/// Cheap to clone; clones share the lease.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    prefix: Arc<str>,
    /// Id of the leader's lease; 0: none.
    lease: Arc<Mutex<i64>>,
    /// Version of the monitors that was read last, and the revision that wrote it: a commit depends on it.
    monitors_read: Arc<std::sync::Mutex<(u64, i64)>>,
}

impl Registry {
    /// Connects on the first request.
    ///
    /// # Errors
    /// An address is not valid.
    pub async fn new(endpoints: &[String], prefix: &str) -> Result<Self, RegistryError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(TIMEOUT)
            .with_keep_alive(KEEP_ALIVE, TIMEOUT)
            .with_keep_alive_while_idle(true);
        let client = Client::connect(endpoints, Some(options)).await?;
        Ok(Self { client, prefix: prefix.into(), lease: Arc::default(), monitors_read: Arc::default() })
    }

    /// # Errors
    /// No answer in time, or an invalid one. The request may have been executed nevertheless.
    pub async fn apply(&self, request: Request) -> Result<Response, RegistryError> {
        let answer = async {
            match request {
                Request::Read => self.read().await,
                Request::Campaign { monitor, ttl } => self.campaign(&monitor, Duration::from_nanos(ttl)).await,
                Request::Resign { .. } => {
                    self.resign().await;
                    Ok(Response::Resigned)
                }
                Request::SetMonitors(monitors) => self.set_monitors(&monitors).await,
                Request::Register(node) => self.register(&node).await,
                Request::Forget(node) => self.forget(&node).await,
                Request::Commit { term, table_revision, monitors_version, table } => {
                    self.commit(term, table_revision, monitors_version, &table).await
                }
            }
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(RegistryError::Timeout))
    }

    /// Calls `changed` after each change, until etcd fails or ends the watch.
    ///
    /// # Errors
    /// Etcd's.
    pub async fn watch(&self, changed: impl Fn()) -> Result<(), RegistryError> {
        let mut client = self.client.watch_client();
        let options = WatchOptions::new().with_prefix();
        let opened = tokio::time::timeout(TIMEOUT, client.watch(&*self.prefix, Some(options))).await;
        let mut stream = opened.unwrap_or(Err(etcd_client::Error::WatchError("no answer".into())))?;
        // Changes before the watch began are found by reading.
        changed();
        while let Some(message) = stream.message().await? {
            if message.canceled() {
                break;
            }
            if !message.events().is_empty() {
                changed();
            }
        }
        Ok(())
    }

    /// Ends the leadership now. If etcd does not answer, the lease expires on its own.
    pub async fn resign(&self) {
        let lease = std::mem::take(&mut *self.lease.lock().await);
        if lease != 0 {
            let mut client = self.client.lease_client();
            _ = tokio::time::timeout(TIMEOUT, client.revoke(lease)).await;
        }
    }

    async fn read(&self) -> Result<Response, RegistryError> {
        let mut client = self.client.kv_client();
        let mut found = client.get(&*self.prefix, Some(GetOptions::new().with_prefix())).await?;
        let mut snapshot = Snapshot { revision: revision(found.header()), ..Snapshot::default() };
        let mut monitors_revision = 0;
        for pair in found.take_kvs() {
            let key = String::from_utf8_lossy(pair.key()).into_owned();
            match key.strip_prefix(&*self.prefix) {
                Some("leader") => snapshot.leader = Some(leader(&pair)),
                Some("monitors") => {
                    snapshot.monitors = Some(value::<Monitors>(&pair, &key)?);
                    monitors_revision = pair.mod_revision();
                }
                Some("table") => {
                    snapshot.table = Arc::new(value::<Table>(&pair, &key)?);
                    snapshot.table_revision = pair.mod_revision().cast_unsigned();
                }
                Some(name) if name.starts_with("nodes/") => match value::<Registration>(&pair, &key) {
                    Ok(node) => _ = snapshot.nodes.insert(node.id.clone(), node),
                    // One bad value must not hide all other workers.
                    Err(error) => {
                        tracing::warn!(key, error = &error as &dyn std::error::Error, "a registration is ignored");
                    }
                },
                // Written by a later version.
                _ => {}
            }
        }
        let version = snapshot.monitors.as_ref().map_or(0, |monitors| monitors.version);
        *self.monitors_read.lock().unwrap_or_else(PoisonError::into_inner) = (version, monitors_revision);
        Ok(Response::Snapshot(Arc::new(snapshot)))
    }

    async fn campaign(&self, monitor: &NodeId, ttl: Duration) -> Result<Response, RegistryError> {
        // Locked during the round trips: two concurrent campaigns would each request a lease.
        let mut lease = self.lease.lock().await;
        let (mut client, key) = (self.client.lease_client(), self.key("leader"));
        if *lease == 0 {
            // A follower requests no lease: it could expire just when the leadership is free.
            if let Some(holder) = self.client.kv_client().get(key.as_str(), None).await?.take_kvs().pop() {
                return Ok(Response::Following(leader(&holder).monitor));
            }
            // Whole seconds. A lease that lasts longer than the leader believes is safe.
            let seconds = i64::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
            *lease = client.grant(seconds, None).await?.id();
        }
        let free = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let take = TxnOp::put(key.as_str(), monitor.as_bytes(), Some(PutOptions::new().with_lease(*lease)));
        let look = TxnOp::get(key.as_str(), None);
        let txn = Txn::new().when([free]).and_then([take]).or_else([look]);
        let outcome = self.client.kv_client().txn(txn).await;
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                if is_over(&error) {
                    *lease = 0;
                }
                return Err(error.into());
            }
        };
        if answer.succeeded() {
            return Ok(Response::Leading { term: revision(answer.header()) });
        }
        let Some(holder) = found(&answer) else { return Ok(Response::Conflict) };
        if holder.lease() != *lease {
            // Another monitor was faster. This lease protects nothing and expires on its own.
            *lease = 0;
            return Ok(Response::Following(leader(&holder).monitor));
        }
        if let Err(error) = client.keep_alive(*lease).await {
            if is_over(&error) {
                *lease = 0;
            }
            return Err(error.into());
        }
        Ok(Response::Leading { term: leader(&holder).term })
    }

    async fn register(&self, node: &Registration) -> Result<Response, RegistryError> {
        let mut client = self.client.kv_client();
        let key = self.key(&format!("nodes/{}", node.id));
        for _ in 0..REGISTER_TRIES {
            let known = client.get(key.as_str(), None).await?.take_kvs().pop();
            let seen = known.as_ref().map_or(0, KeyValue::mod_revision);
            // A value that is no registration is replaced.
            if let Some(known) = known.as_ref().and_then(|known| value::<Registration>(known, &key).ok()) {
                if is_same(&known, node) {
                    return Ok(Response::Registered);
                }
                if !supersedes(&known, node) {
                    return Ok(Response::Superseded { incarnation: known.incarnation });
                }
            }
            let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, seen);
            let put = TxnOp::put(key.as_str(), json(node), None);
            if client.txn(Txn::new().when([unchanged]).and_then([put])).await?.succeeded() {
                return Ok(Response::Registered);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Epoch, primaries and replicas change together or not at all.
    async fn commit(
        &self,
        term: u64,
        table_revision: u64,
        monitors_version: u64,
        table: &Table,
    ) -> Result<Response, RegistryError> {
        let (leader, key) = (self.key("leader"), self.key("table"));
        let mut client = self.client.kv_client();
        let (version, monitors_revision) = self.monitors_read();
        if version != monitors_version {
            return Ok(Response::Conflict);
        }
        let monitors = Compare::mod_revision(self.key("monitors"), CompareOp::Equal, monitors_revision);
        // A missing key has revision 0, so a term of 0 must not match it.
        let leads = Compare::create_revision(leader.as_str(), CompareOp::Equal, term.cast_signed());
        let is_led = Compare::create_revision(leader.as_str(), CompareOp::Greater, 0);
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, table_revision.cast_signed());
        let put = TxnOp::put(key.as_str(), json(table), None);
        let answer = client.txn(Txn::new().when([is_led, leads, monitors, unchanged]).and_then([put])).await?;
        Ok(match answer.succeeded() {
            true => Response::Committed { table_revision: revision(answer.header()) },
            false => Response::Conflict,
        })
    }

    fn monitors_read(&self) -> (u64, i64) {
        // Two numbers that are written together.
        *self.monitors_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitors, and the revision in which they were written; 0: never.
    async fn monitors(&self, client: &mut KvClient) -> Result<(Option<Monitors>, i64), RegistryError> {
        let key = self.key("monitors");
        let Some(known) = client.get(key.as_str(), None).await?.take_kvs().pop() else { return Ok((None, 0)) };
        Ok((Some(value(&known, &key)?), known.mod_revision()))
    }

    async fn set_monitors(&self, monitors: &Monitors) -> Result<Response, RegistryError> {
        let mut client = self.client.kv_client();
        let (known, revision) = self.monitors(&mut client).await?;
        if known.is_some_and(|known| known.version >= monitors.version) {
            return Ok(Response::MonitorsSet);
        }
        let key = self.key("monitors");
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, revision);
        let put = TxnOp::put(key.as_str(), json(monitors), None);
        // If another monitor was faster, the next read shows what it has written.
        client.txn(Txn::new().when([unchanged]).and_then([put])).await?;
        Ok(Response::MonitorsSet)
    }

    async fn forget(&self, node: &Registration) -> Result<Response, RegistryError> {
        let key = self.key(&format!("nodes/{}", node.id));
        let mut client = self.client.kv_client();
        let Some(known) = client.get(key.as_str(), None).await?.take_kvs().pop() else {
            return Ok(Response::Forgotten);
        };
        if value::<Registration>(&known, &key)? == *node {
            let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, known.mod_revision());
            client.txn(Txn::new().when([unchanged]).and_then([TxnOp::delete(key.as_str(), None)])).await?;
        }
        Ok(Response::Forgotten)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Whether the lease has expired. After any other error it may still be valid.
fn is_over(error: &etcd_client::Error) -> bool {
    match error {
        etcd_client::Error::LeaseKeepAliveError(_) => true,
        etcd_client::Error::GRpcStatus(status) => status.code() == tonic::Code::NotFound,
        _ => false,
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision().cast_unsigned())
}

fn leader(pair: &KeyValue) -> Leader {
    Leader {
        monitor: String::from_utf8_lossy(pair.value()).as_ref().into(),
        term: pair.create_revision().cast_unsigned(),
    }
}

fn value<T: serde::de::DeserializeOwned>(pair: &KeyValue, key: &str) -> Result<T, RegistryError> {
    serde_json::from_slice(pair.value()).map_err(|source| RegistryError::Value { key: key.to_owned(), source })
}

/// Maps with string keys, strings and numbers always serialise.
fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The value that the other branch of a transaction read.
fn found(answer: &etcd_client::TxnResponse) -> Option<KeyValue> {
    answer.op_responses().into_iter().find_map(|response| match response {
        etcd_client::TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
        _ => None,
    })
}
