//! Users who send GETs and POSTs in turn, each over a connection that is kept.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use reqwest::{Client, RequestBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const COUNT: usize = 24;
/// Of a user between two requests.
const PAUSE: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Users {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    sent: Arc<Mutex<Sent>>,
}

#[derive(Debug, Default, Clone)]
pub struct Sent {
    pub requests: u64,
    /// Without an answer 2xx.
    pub lost: u64,
    /// Method and error.
    pub first_loss: Option<String>,
}

impl Users {
    pub fn start(gateway: &str, ids: &[String]) -> anyhow::Result<Self> {
        let (stop, sent, mut tasks) = (CancellationToken::new(), Arc::<Mutex<Sent>>::default(), JoinSet::new());
        for id in ids.iter().take(COUNT) {
            // A client of its own has connections of its own.
            let client = runtime::http::plain().timeout(TIMEOUT).build()?;
            tasks.spawn(user(client, gateway.to_owned(), id.clone(), stop.clone(), Arc::clone(&sent)));
        }
        Ok(Self { stop, tasks, sent })
    }

    /// After the answers to all requests.
    pub async fn stop(mut self) -> anyhow::Result<Sent> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a user ended")?;
        }
        Ok(self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn user(client: Client, gateway: String, id: String, stop: CancellationToken, sent: Arc<Mutex<Sent>>) {
    let body = format!(r#"{{"user_id":"{id}","item_id":"i00001","event":"view"}}"#);
    while !stop.is_cancelled() {
        request(client.get(format!("{gateway}/recommendations?user_id={id}")), "GET", &sent).await;
        let post = client.post(format!("{gateway}/events")).header("content-type", "application/json");
        request(post.body(body.clone()), "POST", &sent).await;
    }
}

async fn request(request: RequestBuilder, method: &str, sent: &Mutex<Sent>) {
    let answer = async { request.send().await?.error_for_status()?.bytes().await };
    let answer = answer.await;
    {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.requests += 1;
        if let Err(error) = answer {
            sent.lost += 1;
            sent.first_loss.get_or_insert(format!("{method}: {:#}", anyhow::Error::from(error)));
        }
    }
    tokio::time::sleep(PAUSE).await;
}
