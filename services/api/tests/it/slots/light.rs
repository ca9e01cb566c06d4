//! A replica without stores: it serves and leaves by the code of a real one, on one thread. Each request costs a millisecond of it, as where CPU is the
//! bottleneck: a request may wait in a connection while the thread works on another one.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, http::Method};
use runtime::{Endpoint, slot::Reserved};
use tokio_util::sync::CancellationToken;

const WORK: Duration = Duration::from_millis(1);

/// The POSTs that all replicas received.
#[derive(Default, Clone)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    pub fn posts(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Light {
    socket: PathBuf,
    stop: CancellationToken,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Light {
    pub fn start(socket: PathBuf, received: &Received, leave: Duration) -> Self {
        let (stop, answered, received) = (CancellationToken::new(), Arc::<AtomicU64>::default(), received.clone());
        let count = Arc::clone(&answered);
        let app = Router::new().fallback(move |method: Method| {
            std::thread::sleep(WORK);
            count.fetch_add(1, Ordering::Relaxed);
            received.0.fetch_add(u64::from(method == Method::POST), Ordering::Relaxed);
            std::future::ready("answer")
        });
        let (endpoint, shutdown) = (Endpoint::Unix(socket.clone()), stop.clone());
        let served = async move {
            let open = Reserved::bind(&endpoint).await?.open().await?;
            open.serve(app, shutdown, leave, Duration::from_secs(5)).await
        };
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(served)
        });
        Self { socket, stop, answered, thread }
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn is_there(&self) -> bool {
        self.socket.exists()
    }

    /// Lets all leave at the same time, and waits until each has ended.
    pub async fn stop_all(lights: Vec<Self>) {
        for light in &lights {
            light.stop.cancel();
        }
        let ended =
            tokio::task::spawn_blocking(|| lights.into_iter().try_for_each(|light| light.thread.join().unwrap()));
        ended.await.unwrap().unwrap();
    }
}
