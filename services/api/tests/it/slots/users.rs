//! Users who send GETs and POSTs in turn, each over a connection that is kept.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, RequestBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const COUNT: usize = 24;
/// Of a user between two requests.
const PAUSE: Duration = Duration::from_millis(5);

pub struct Users {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    sent: Arc<Sent>,
}

#[derive(Default)]
struct Sent {
    gets: AtomicU64,
    posts: AtomicU64,
    lost: Mutex<Vec<String>>,
}

pub struct Tally {
    pub gets: u64,
    pub posts: u64,
    /// What came instead of an answer 2xx.
    pub lost: Vec<String>,
}

impl Users {
    pub fn start(gateway: &str) -> Self {
        let (stop, sent, mut tasks) = (CancellationToken::new(), Arc::<Sent>::default(), JoinSet::new());
        for n in 0..COUNT {
            tasks.spawn(user(n, gateway.to_owned(), stop.clone(), Arc::clone(&sent)));
        }
        Self { stop, tasks, sent }
    }

    pub fn lost(&self) -> usize {
        self.sent.lost.lock().unwrap().len()
    }

    pub fn answered(&self) -> u64 {
        self.sent.gets.load(Ordering::Relaxed) + self.sent.posts.load(Ordering::Relaxed) - self.lost() as u64
    }

    /// After the answers to all requests.
    pub async fn stop(mut self) -> Tally {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let Sent { gets, posts, lost } = &*self.sent;
        let lost = lost.lock().unwrap().clone();
        Tally { gets: gets.load(Ordering::Relaxed), posts: posts.load(Ordering::Relaxed), lost }
    }
}

async fn user(n: usize, gateway: String, stop: CancellationToken, sent: Arc<Sent>) {
    // A client of its own has connections of its own.
    let client = runtime::http::plain().timeout(Duration::from_secs(60)).build().unwrap();
    while !stop.is_cancelled() {
        let get = client.get(format!("{gateway}/recommendations?user_id=slots-{n}"));
        request(get, "GET", &sent.gets, &sent).await;
        request(post(&client, &gateway, n), "POST", &sent.posts, &sent).await;
    }
}

fn post(client: &Client, gateway: &str, n: usize) -> RequestBuilder {
    let body = format!(r#"{{"user_id":"slots-{n}","item_id":"i00001","event":"view"}}"#);
    client.post(format!("{gateway}/events")).header("content-type", "application/json").body(body)
}

async fn request(request: RequestBuilder, method: &str, count: &AtomicU64, sent: &Sent) {
    let answer = async {
        let answer = request.send().await?.error_for_status()?;
        answer.bytes().await
    };
    let answer = answer.await;
    count.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = answer {
        sent.lost.lock().unwrap().push(format!("{method}: {error:?}"));
    }
    tokio::time::sleep(PAUSE).await;
}
