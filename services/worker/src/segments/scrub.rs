//! Step 3, first half: reads all copies again and again, at a limited rate, and compares them with their manifests. Each worker begins at a
//! segment and a block of its own choice, so that the copies of one segment are not read at the same time.

use std::time::{Duration, Instant};

use contract::{SEGMENTS, SegmentId};
use segments::{BLOCK_BYTES, CopyState, Found};
use tokio::time::sleep;

use super::{Segments, pace::Pace};

/// Blocks read in one visit to the disk.
const BLOCKS_PER_READ: u32 = 16;

/// Reads everything once, then scrubs for ever. One pass takes at least the interval of the reports.
pub async fn run(segments: Segments) {
    for segment in SegmentId::all() {
        segments.refresh(segment).await;
    }
    segments.0.is_read.set(()).ok();
    let pace = Pace::new(segments.0.config.scrub_bytes_per_s);
    let at_least = Duration::from_millis(segments.0.config.report_every_ms);
    loop {
        let began = Instant::now();
        let first = rand::random_range(0..SEGMENTS);
        for number in (first..SEGMENTS).chain(0..first) {
            if let Some(segment) = SegmentId::new(number) {
                scrub(&segments, segment, &pace).await;
            }
        }
        segments.0.metrics.scrubs.inc();
        sleep(at_least.saturating_sub(began.elapsed())).await;
    }
}

/// Compares the copy with what is known of it. A difference is reported at once.
async fn scrub(segments: &Segments, segment: SegmentId, pace: &Pace) {
    let known = segments.0.copies.get(segment);
    let Ok(Ok(found)) = segments.on_disk(move |directory| directory.find(segment)).await else {
        return segments.refresh(segment).await;
    };
    let Found::Version(file) = found else {
        // A copy that is known as missing or damaged is no news.
        if known.and_then(|known| known.current).is_some_and(|current| current.manifest.is_some()) {
            segments.refresh(segment).await;
        }
        return;
    };
    let Some(CopyState { manifest: Some(manifest), blocks }) = known.and_then(|known| known.current) else {
        return segments.refresh(segment).await;
    };
    if manifest != *file.manifest() {
        return segments.refresh(segment).await;
    }
    let count = blocks.len() as u32;
    let (file, from) = (std::sync::Arc::new(file), rand::random_range(0..count.max(1)));
    let mut at = 0;
    while at < count {
        let until = (at + BLOCKS_PER_READ).min(count);
        pace.wait((until - at) as usize * BLOCK_BYTES).await;
        let numbers: Vec<u32> = (at..until).map(|block| (block + from) % count).collect();
        let reading = std::sync::Arc::clone(&file);
        let read = move |_: &_| numbers.into_iter().map(|block| (block, reading.digest_on_disk(block))).collect();
        let read: Vec<_> = segments.on_disk(read).await.unwrap_or_default();
        segments.0.metrics.scrubbed_bytes.inc_by(u64::from(until - at) * BLOCK_BYTES as u64);
        if read.iter().any(|(block, digest)| blocks.get(*block as usize) != Some(digest)) {
            segments.0.metrics.damage_found.inc();
            return segments.refresh(segment).await;
        }
        at = until;
    }
}
