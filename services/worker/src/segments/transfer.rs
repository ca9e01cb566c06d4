//! Step 5, at the receiver: blocks from another worker by HTTP ranges, a version folded again from the logs, a copy removed.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use contract::SegmentId;
use reqwest::{StatusCode, header};
use runtime::{background, telemetry::Span};
use segments::{
    BLOCK_BYTES, Digest, Found, MAX_MANIFEST_BYTES, MAX_RANGE_BYTES, Manifest, Version, WriteError, encode,
};

use super::Segments;

/// Blocks in one request.
const BLOCKS_PER_REQUEST: usize = MAX_RANGE_BYTES as usize / BLOCK_BYTES;

/// A transfer as the monitor ordered it.
pub(super) struct Ordered<'a> {
    pub version: Version,
    pub content: Digest,
    /// The source's HTTP port, `host:port`. It is this worker itself if only a staged version has to be put into place.
    pub address: &'a str,
    pub manifest: bool,
    pub blocks: &'a [u32],
}

impl Segments {
    /// Fetches the manifest, if the order says so, and blocks. Bytes that are not these blocks of this version are refused. `received` counts
    /// bytes, also if the transfer fails.
    pub(super) async fn transfer(
        &self,
        segment: SegmentId,
        order: &Ordered<'_>,
        span: &Span,
        received: &mut u64,
    ) -> anyhow::Result<()> {
        let Ordered { content, address, blocks, .. } = *order;
        let is_wanted = move |manifest: &Manifest| (manifest.content(), manifest.version()) == (content, order.version);
        let own = self.on_disk(move |directory| directory.manifests(segment)).await??;
        let manifest = match own.into_iter().find(is_wanted) {
            Some(manifest) => manifest,
            None if order.manifest => self.fetch_manifest(segment, order, received).await?,
            None => bail!("this worker has another version of segment {segment} by now"),
        };
        ensure!(is_wanted(&manifest), "{address} has another version of segment {segment} by now");
        let _writing = self.write_lock(segment).await;
        let begun = manifest.clone();
        let mut incoming = match self.on_disk(move |directory| directory.begin(begun)).await? {
            // A late order.
            Err(WriteError::Older(_)) => return Ok(()),
            begun => begun.context("cannot begin")?,
        };
        // An order may be late: what came since is not fetched again.
        let missing: BTreeSet<u32> = incoming.missing().into_iter().collect();
        let blocks: Vec<u32> = blocks.iter().copied().filter(|block| missing.contains(block)).collect();
        for run in runs(&blocks) {
            let (offset, length) = extent(&manifest, run)?;
            self.0.pace.wait(length).await;
            let bytes = self.fetch_range(segment, &manifest, address, offset, length).await?;
            *received += bytes.len() as u64;
            self.0.metrics.received_bytes.inc_by(bytes.len() as u64);
            let numbers: Vec<u32> = run.to_vec();
            let (back, put) = self
                .on_disk(move |_| {
                    let mut incoming = incoming;
                    let put = numbers.iter().zip(bytes.chunks(BLOCK_BYTES));
                    let put = put.map(|(&block, bytes)| incoming.put(block, bytes)).collect::<Result<Vec<_>, _>>();
                    (incoming, put)
                })
                .await?;
            incoming = back;
            put.with_context(|| format!("a block of segment {segment} from {address} is refused"))?;
        }
        let is_in_place = self.on_disk(move |_| incoming.finish()).await?.context("cannot finish a transfer")?;
        span.event(if is_in_place { "the version is in place" } else { "further blocks are missing" });
        Ok(())
    }

    /// Folds the version from the logs. The bytes depend on nothing else. A version that dominates it, as the publisher may have written
    /// meanwhile, is as good.
    pub(super) async fn rebuild(&self, segment: SegmentId, version: Version) -> anyhow::Result<()> {
        let _rebuilding = self.0.rebuilding.lock().await;
        if self.has(segment, version).await? {
            return Ok(());
        }
        let fold = lists::fold_log(&self.0.store, &[segment], Some(version.vector)).await;
        let fold = fold.context("cannot fold the logs")?;
        let folding = background::run(move || fold.publish(segment).map(|published| encode(&published)));
        let bytes = folding.await?.context("the fold has the segment")?;
        let _writing = self.write_lock(segment).await;
        match self.on_disk(move |directory| directory.write(segment, version, &bytes)).await? {
            Ok(_) | Err(WriteError::Older(_)) => Ok(()),
            Err(error) => Err(error).context("cannot write the segment"),
        }
    }

    /// Whether the current version is complete, and has all events of this one.
    async fn has(&self, segment: SegmentId, version: Version) -> anyhow::Result<bool> {
        let found = self.on_disk(move |directory| directory.find(segment)).await??;
        let Found::Version(file) = found else { return Ok(false) };
        let has_events = file.manifest().version().vector >= version.vector;
        Ok(has_events && self.on_disk(move |_| file.is_complete()).await?)
    }

    pub(super) async fn remove(&self, segment: SegmentId) -> anyhow::Result<()> {
        let _writing = self.write_lock(segment).await;
        // Under the lock: the wait may be long.
        let table = self.0.ownership.table();
        let assignment = &table.partitions[segment.index()];
        let is_holder = assignment.primary.iter().chain(&assignment.replicas).any(|holder| *holder == self.0.me);
        ensure!(!is_holder, "this worker holds segment {segment} in epoch {}", table.epoch);
        self.on_disk(move |directory| directory.remove(segment)).await?.context("cannot remove the copy")
    }

    async fn fetch_manifest(
        &self,
        segment: SegmentId,
        order: &Ordered<'_>,
        received: &mut u64,
    ) -> anyhow::Result<Manifest> {
        let Ordered { version, content, address, .. } = order;
        let (number, epoch) = (segment.number(), version.epoch);
        let url = format!("http://{address}/segments/{number}/manifest?content={content}&epoch={epoch}");
        let response = self.0.http.get(&url).send().await.context("the source does not answer")?;
        ensure!(response.status() == StatusCode::OK, "{url} answered {}", response.status());
        let bytes = runtime::http::body_within(response, MAX_MANIFEST_BYTES).await?;
        *received += bytes.len() as u64;
        self.0.metrics.received_bytes.inc_by(bytes.len() as u64);
        Ok(Manifest::decode(&bytes, segment)?)
    }

    async fn fetch_range(
        &self,
        segment: SegmentId,
        manifest: &Manifest,
        address: &str,
        offset: u64,
        length: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{address}/segments/{}/blocks/{}", segment.number(), manifest.content());
        let range = format!("bytes={offset}-{}", offset + length as u64 - 1);
        let response = self.0.http.get(&url).header(header::RANGE, range).send().await;
        let response = response.context("the source does not answer")?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            bail!("{url} answered {}", response.status());
        }
        let bytes = runtime::http::body_within(response, length).await?;
        ensure!(bytes.len() == length, "{url} sent {} of {length} bytes", bytes.len());
        Ok(bytes)
    }
}

/// Neighbouring blocks, which one request can fetch.
fn runs(blocks: &[u32]) -> impl Iterator<Item = &[u32]> {
    blocks
        .chunk_by(|one, next| one.checked_add(1) == Some(*next))
        .flat_map(|neighbours| neighbours.chunks(BLOCKS_PER_REQUEST))
}

/// Offset and length in bytes.
fn extent(manifest: &Manifest, run: &[u32]) -> anyhow::Result<(u64, usize)> {
    let length = run.iter().map(|&block| manifest.block_length(block)).sum();
    let first = run.first().copied().unwrap_or_default();
    ensure!(length > 0, "the version has no block {first}");
    Ok((u64::from(first) * BLOCK_BYTES as u64, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_blocks_are_one_request() {
        let found: Vec<&[u32]> = runs(&[1, 2, 3, 7, 9, 10]).collect();
        assert_eq!(found, [&[1, 2, 3][..], &[7], &[9, 10]]);
        let many: Vec<u32> = (0..600).collect();
        assert_eq!(runs(&many).map(<[u32]>::len).collect::<Vec<_>>(), [256, 256, 88]);
        assert_eq!(runs(&[]).count(), 0);
    }
}
