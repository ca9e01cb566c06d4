//! Requests of different criticality.

use contract::http::Criticality;
use loadtest::{
    criticality::CriticalityMix,
    retry::{Backoff, Budget, Retry},
};

use super::{from, problem, run, serve, setup};

/// Every try carries the header of its request, and the figures tell the criticalities apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_carry_their_criticality_and_are_counted_by_it() {
    let (url, server) = serve(|_user| (std::time::Duration::ZERO, problem(503, "/problems/overloaded"))).await;
    let mut setup = setup(&url, 2000);
    setup.plan.criticality = Some(CriticalityMix { critical: 0.2, sheddable: 0.3 });
    let (backoff, budget) = (Backoff::None, Budget::None);
    setup.plan.retry = Some(Retry { attempts: 2, per_try_timeout_ms: 2000, backoff, budget });
    let outcome = run(&setup.plan).await;
    let seen = server.criticalities.lock().unwrap();
    let count =
        |criticality: Criticality| seen.iter().filter(|value| value.as_deref() == Some(criticality.as_str())).count();
    let [critical, default, sheddable] = Criticality::ALL.map(count);
    assert_eq!(critical + default + sheddable, seen.len(), "each try has a header");
    assert!(
        0 < critical && critical < default && 0 < sheddable && sheddable < default,
        "{critical} {default} {sheddable}"
    );
    assert_eq!(outcome.criticalities.iter().map(|figures| figures.answered).sum::<u64>(), outcome.answered);
    assert!(outcome.criticalities.iter().all(|figures| figures.answered > 0 && figures.good == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mix_there_is_no_header() {
    let (url, server) = serve(|_user| (std::time::Duration::ZERO, from("store"))).await;
    let outcome = run(&setup(&url, 2000).plan).await;
    assert!(server.criticalities.lock().unwrap().iter().all(Option::is_none));
    assert!(outcome.good > 0 && outcome.criticalities.is_empty());
}
