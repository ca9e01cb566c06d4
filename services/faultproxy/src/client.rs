//! Client of the admin API.

use reqwest::Method;
use runtime::{AdminClient, client::ClientError};

use crate::{
    admin::State,
    fault::{FaultKind, FaultSpec},
    law::Law,
};

/// Cheap to clone. Each request has a timeout of 5 s.
#[derive(Debug, Clone)]
pub struct Client(AdminClient);

impl Client {
    /// `url`: `http://host:port` of the admin API.
    ///
    /// # Errors
    /// The HTTP client could not be built.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        AdminClient::new("faultproxy", url).map(Self)
    }

    /// # Errors
    /// See `ClientError`; this applies to all methods below.
    pub async fn state(&self) -> Result<State, ClientError> {
        self.0.json("/state").await
    }

    pub async fn set_law(&self, law: Law) -> Result<(), ClientError> {
        self.0.write(Method::PUT, "/law", &law).await
    }

    /// Adds a fault. It replaces a fault of the same kind on the same links and in the same direction.
    pub async fn add_fault(&self, fault: impl Into<FaultSpec>) -> Result<(), ClientError> {
        self.0.write(Method::POST, "/faults", &fault.into()).await
    }

    /// Removes all faults.
    pub async fn clear(&self) -> Result<(), ClientError> {
        self.0.delete("/faults").await
    }

    /// Removes all faults of this kind.
    pub async fn lift(&self, kind: FaultKind) -> Result<(), ClientError> {
        self.0.delete(&format!("/faults/{}", kind.as_str())).await
    }

    /// Removes the faults that were added for this link or pattern.
    pub async fn clear_link(&self, pattern: &str) -> Result<(), ClientError> {
        // Names may contain characters that end a query.
        let encoded: String = pattern.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.0.delete(&format!("/faults?link={encoded}")).await
    }

    /// Metrics in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.0.text("/metrics").await
    }
}
