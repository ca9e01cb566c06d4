//! Requests for manifests and blocks.

use contract::http::{Problem, problem};
use reqwest::Response;
use segments::{BLOCK_BYTES, MAX_RANGE_BYTES};

use super::*;

/// What a problem document says, with the status of the response.
async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    if status == 503 {
        assert_eq!(header(&response, "retry-after"), "1");
    }
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    (status, problem.kind, problem.detail)
}

fn expected(status: u16, kind: &str, detail: impl Into<String>) -> (u16, String, String) {
    (status, kind.to_owned(), detail.into())
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_have_a_tag_and_come_from_the_primary_or_from_the_holder_that_is_asked() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    let known = world.complete("w");
    let manifest = &known[&segment(3)];
    let tag = format!("\"{}-{}\"", manifest.content(), manifest.version().epoch);
    let found = worker.get("/segments/3/manifest", &[]).await;
    assert_eq!((found.status().as_u16(), header(&found, "etag")), (200, &*tag));
    assert_eq!(header(&found, "content-type"), "application/octet-stream");
    assert_eq!(found.bytes().await.unwrap(), manifest.encode());
    let unchanged = worker.get("/segments/3/manifest", &[("if-none-match", &tag)]).await;
    assert_eq!((unchanged.status().as_u16(), header(&unchanged, "etag")), (304, &*tag));
    assert!(unchanged.bytes().await.unwrap().is_empty());
    let changed = worker.get("/segments/4/manifest", &[("if-none-match", &tag)]).await;
    assert_eq!(changed.status(), 200);

    let address = world.give_to_another("v", &[5]);
    until("it has lost one", async || worker.get("/segments/5/manifest", &[]).await.status() == 307).await;
    let elsewhere = worker.get("/segments/5/manifest", &[]).await;
    assert_eq!(header(&elsewhere, "location"), format!("http://{address}/segments/5/manifest"));
    let detail = format!("v is the primary of segment 05 in epoch {}", world.monitor.table().epoch);
    assert_eq!(refusal(elsewhere).await, expected(307, problem::NOT_THE_PRIMARY, detail));
    let manifest = &known[&segment(5)];
    let (content, epoch) = (manifest.content(), manifest.version().epoch);
    for query in ["holder=true".to_owned(), format!("content={content}&epoch={epoch}")] {
        let own = worker.get(&format!("/segments/5/manifest?{query}"), &[]).await;
        assert_eq!(own.status(), 200, "{query}");
        assert_eq!(own.bytes().await.unwrap(), manifest.encode());
    }
    let other = known[&segment(6)].content();
    for query in [
        format!("content={content}&epoch={}", epoch + 1),
        format!("content={content}"),
        format!("content={other}&epoch={epoch}"),
        format!("content=none&epoch={epoch}"),
    ] {
        let unknown = worker.get(&format!("/segments/5/manifest?{query}"), &[]).await;
        let detail = "w does not have this version of segment 05";
        assert_eq!(refusal(unknown).await, expected(404, problem::NOT_FOUND, detail), "{query}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_cannot_be_served_is_refused_with_the_reason() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    let (manifest, bytes) = fetch(&worker, segment(3)).await;
    let (content, length) = (manifest.content(), bytes.len());
    assert!(length > BLOCK_BYTES, "more than one block");
    let path = format!("/segments/3/blocks/{content}");
    let ask = async |range: &str| worker.get(&path, &[("range", range)]).await;
    for (first, last) in [(0, 0), (BLOCK_BYTES - 1, BLOCK_BYTES), (length - 1, length - 1), (0, length - 1)] {
        let part = ask(&format!("bytes={first}-{last}")).await;
        assert_eq!(part.status(), 206);
        assert_eq!(header(&part, "content-range"), format!("bytes {first}-{last}/{length}"));
        assert_eq!(part.bytes().await.unwrap(), &bytes[first..=last]);
    }
    for (first, last) in [(length, length), (0, length), (1 << 40, 1 << 40)] {
        let beyond = ask(&format!("bytes={first}-{last}")).await;
        assert_eq!(header(&beyond, "content-range"), format!("bytes */{length}"));
        let detail = format!(
            "bytes {first} to {first} + {} are beyond the end of the file, which has {length} bytes",
            last - first + 1
        );
        assert_eq!(refusal(beyond).await, expected(416, problem::INVALID_REQUEST, detail));
    }
    let long = ask(&format!("bytes=0-{MAX_RANGE_BYTES}")).await;
    let detail = "a range of 1048577 bytes is too long, the limit is 1048576";
    assert_eq!(refusal(long).await, expected(400, problem::INVALID_REQUEST, detail));
    for wrong in ["bytes=9-8", "bytes=-5", "bytes=5-", "0-1", "bytes=0-1,3-4", "bytes=0-18446744073709551615"] {
        let detail = "Range must be bytes=FIRST-LAST, of at most 1048576 bytes";
        assert_eq!(refusal(ask(wrong).await).await, expected(400, problem::INVALID_REQUEST, detail), "{wrong}");
    }
    let of = async |path: &str| refusal(worker.get(path, &[("range", "bytes=0-0")]).await).await;
    let elsewhere = of(&format!("/segments/4/blocks/{content}")).await;
    assert_eq!(elsewhere, expected(404, problem::NOT_FOUND, "w does not have this version of segment 04"));
    let detail = "the content is named by the 64 hexadecimal digits of its digest";
    assert_eq!(of("/segments/3/blocks/abc").await, expected(400, problem::INVALID_REQUEST, detail));
    for path in
        ["/segments/16/manifest", "/segments/16/manifest?holder=true", &format!("/segments/16/blocks/{content}")]
    {
        let detail = "there is no segment 16, the last is 15";
        assert_eq!(of(path).await, expected(404, problem::NOT_FOUND, detail), "{path}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_request_finds_is_not_served_and_reported_at_once() {
    let Some(world) = World::start().await else { return };
    let worker = world.primary("w", &ALL, A_DAY_MS).await;
    world.reported("w", &ALL).await;
    // The next pass of the scrubber is in a day: it finds nothing here.
    until("scrubbed", async || worker.metric("testbed_worker_segment_scrubs_total").await == Some(1.0)).await;
    let known = world.complete("w");
    let path = |number: usize| format!("/segments/{number}/blocks/{}", known[&segment(number)].content());
    let block = |number| format!("bytes={}-{}", number * BLOCK_BYTES, number * BLOCK_BYTES + 9);
    let ask = async |number, of_block: usize| worker.get(&path(number), &[("range", &block(of_block))]).await;

    flip(&world.path("w").join(known[&segment(3)].file_name()), BLOCK_BYTES + 7);
    assert_eq!(ask(3, 0).await.status(), 206);
    let detail = "block 1 of segment 3 is damaged or missing on this disk";
    assert_eq!(refusal(ask(3, 1).await).await, expected(503, problem::DAMAGED_BLOCK, detail));
    until("the block is reported", async || {
        let copy = world.care.copies("w").remove(&segment(3)).unwrap().current.unwrap();
        copy.manifest.as_ref() == Some(&known[&segment(3)]) && !copy.has(&known[&segment(3)], 1)
    })
    .await;
    assert_eq!(worker.metric("testbed_worker_segment_blocks_refused_total").await, Some(1.0));

    flip(&world.path("w").join("segment-04.manifest"), 20);
    let damaged = worker.get("/segments/4/manifest", &[]).await;
    let detail = "the manifest is damaged: its digest is another one";
    assert_eq!(refusal(damaged).await, expected(503, problem::DAMAGED_BLOCK, detail));
    until("the manifest is reported", async || {
        world.care.copies("w")[&segment(4)].current.as_ref().is_some_and(|copy| copy.manifest.is_none())
    })
    .await;

    fs::remove_dir_all(world.path("w")).unwrap();
    let gone = worker.get("/segments/7/manifest", &[]).await;
    assert_eq!(refusal(gone).await, expected(503, problem::NO_VERSION, "w has no version of segment 07 yet"));
    let detail = "w does not have this version of segment 08";
    assert_eq!(refusal(ask(8, 0).await).await, expected(404, problem::NOT_FOUND, detail));
    until("missing copies are reported", async || {
        let copies = world.care.copies("w");
        !copies.contains_key(&segment(7)) && !copies.contains_key(&segment(8))
    })
    .await;
    let complete = world.care.accepted().iter().filter(|report| report.complete).count();
    assert_eq!(complete, 1, "the first report only");
    world.stop().await;
}
