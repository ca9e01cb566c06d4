//! Step 6: manifests and blocks over HTTP. Every block is verified before it is sent. A manifest is that of the segment's primary, to which
//! another worker redirects (307); blocks are addressed by their content, and any holder sends them.

use std::io;

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use contract::{SegmentId, http::problem};
use segments::{BlockError, CopyReport, Digest, Found, MAX_RANGE_BYTES, Manifest, VerifiedFile};
use serde::Deserialize;

use super::Segments;
use crate::partitions::answer;

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Routes below `/segments`.
pub fn router(segments: Segments) -> Router {
    Router::new()
        .route("/segments/{segment}/manifest", get(manifest))
        .route("/segments/{segment}/blocks/{content}", get(blocks))
        .with_state(segments)
}

#[derive(Debug, Deserialize)]
struct ManifestQuery {
    /// Asks for this worker's own copy, also if another worker is the primary.
    #[serde(default)]
    holder: bool,
    /// Asks for the manifest of this content and epoch, also of a version that is not complete here.
    content: Option<String>,
    #[serde(default)]
    epoch: u64,
}

async fn manifest(
    State(segments): State<Segments>,
    Path(number): Path<u8>,
    Query(query): Query<ManifestQuery>,
    headers: HeaderMap,
) -> Response {
    let Some(segment) = SegmentId::new(number) else { return no_such_segment(number) };
    if let Some(content) = &query.content {
        return segments.by_content(segment, content, query.epoch).await;
    }
    if !query.holder
        && let Some(elsewhere) = segments.redirect(segment)
    {
        return elsewhere;
    }
    let file = match segments.on_disk(move |directory| directory.find(segment)).await.flatten() {
        Ok(Found::Version(file)) => file,
        Ok(Found::BadManifest(error)) => {
            segments.found_damage(segment);
            return answer(StatusCode::SERVICE_UNAVAILABLE, problem::DAMAGED_BLOCK, error.to_string());
        }
        Ok(Found::Nothing) => {
            segments.is_gone(segment, |_| true);
            let detail = format!("{} has no version of segment {segment} yet", segments.0.me);
            return answer(StatusCode::SERVICE_UNAVAILABLE, problem::NO_VERSION, detail);
        }
        Err(error) => return disk_failed(&error),
    };
    let manifest = file.manifest();
    let tag = manifest.etag();
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, BYTES)], manifest.encode()).into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

async fn blocks(
    State(segments): State<Segments>,
    Path((number, content)): Path<(u8, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(segment) = SegmentId::new(number) else { return no_such_segment(number) };
    let Some(content) = Digest::parse(&content) else {
        let detail = "the content is named by the 64 hexadecimal digits of its digest".into();
        return answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, detail);
    };
    let file = match segments.on_disk(move |directory| directory.by_content(segment, content)).await.flatten() {
        Ok(Some(file)) => file,
        Ok(None) => return segments.another_version(segment, Some(content)),
        Err(error) => return disk_failed(&error),
    };
    let length = file.manifest().length();
    let range = headers.get(header::RANGE).map_or(Some((0, length)), |range| parse_range(range.to_str().ok()?));
    let Some((offset, wanted)) = range else {
        let detail = format!("Range must be bytes=FIRST-LAST, of at most {MAX_RANGE_BYTES} bytes");
        return answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, detail);
    };
    let read = segments.on_disk(move |_| file.range(offset, wanted).map(|bytes| (bytes, file))).await;
    match read.map_err(BlockError::Io).flatten() {
        Ok((bytes, file)) => partial(&segments, offset, bytes, &file),
        Err(error @ BlockError::BeyondEnd { .. }) => {
            let detail = error.to_string();
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, problem::INVALID_REQUEST, detail);
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{length}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            response
        }
        Err(error @ BlockError::RangeTooLong(_)) => {
            answer(StatusCode::BAD_REQUEST, problem::INVALID_REQUEST, error.to_string())
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, %segment, "a block is not served");
            segments.0.metrics.refused.inc();
            segments.found_damage(segment);
            answer(StatusCode::SERVICE_UNAVAILABLE, problem::DAMAGED_BLOCK, error.to_string())
        }
    }
}

fn partial(segments: &Segments, offset: u64, bytes: Vec<u8>, file: &VerifiedFile) -> Response {
    segments.0.metrics.served_bytes.inc_by(bytes.len() as u64);
    let (last, length) = ((offset + bytes.len() as u64).saturating_sub(1), file.manifest().length());
    let range = HeaderValue::from_str(&format!("bytes {offset}-{last}/{length}"));
    let mut response = (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_TYPE, BYTES)], bytes).into_response();
    if let Ok(range) = range {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Offset and length of `bytes=FIRST-LAST`.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

impl Segments {
    async fn by_content(&self, segment: SegmentId, content: &str, epoch: u64) -> Response {
        let content = Digest::parse(content);
        let wanted = (content, epoch);
        let is_wanted = |found: &Manifest| (Some(found.content()), found.version().epoch) == wanted;
        match self.on_disk(move |directory| directory.manifests(segment)).await.flatten() {
            Ok(manifests) => match manifests.into_iter().find(is_wanted) {
                Some(manifest) => ([(header::CONTENT_TYPE, BYTES)], manifest.encode()).into_response(),
                None => self.another_version(segment, content),
            },
            Err(error) => disk_failed(&error),
        }
    }

    fn another_version(&self, segment: SegmentId, content: Option<Digest>) -> Response {
        self.is_gone(segment, |manifest| Some(manifest.content()) == content);
        let detail = format!("{} does not have this version of segment {segment}", self.0.me);
        answer(StatusCode::NOT_FOUND, problem::NOT_FOUND, detail)
    }

    /// `None`: this worker is the segment's primary.
    fn redirect(&self, segment: SegmentId) -> Option<Response> {
        let latest = std::sync::Arc::clone(&self.0.latest.borrow());
        let assignment = latest.table.partitions.get(segment.index())?;
        let primary = assignment.primary.as_ref().filter(|primary| latest.addresses.contains_key(*primary));
        let Some(primary) = primary else {
            let detail = format!("segment {segment} has no primary in epoch {}", assignment.epoch);
            return Some(answer(StatusCode::SERVICE_UNAVAILABLE, problem::NOT_THE_PRIMARY, detail));
        };
        if *primary == self.0.me {
            return None;
        }
        let detail = format!("{primary} is the primary of segment {segment} in epoch {}", assignment.epoch);
        let mut response = answer(StatusCode::TEMPORARY_REDIRECT, problem::NOT_THE_PRIMARY, detail);
        let location = format!("http://{}/segments/{}/manifest", latest.addresses[primary], segment.number());
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Some(response)
    }

    /// A version that was asked for is not on the disk. If the monitors believe that it is, they have to know.
    fn is_gone(&self, segment: SegmentId, wanted: impl Fn(&Manifest) -> bool) {
        let known = self.0.copies.get(segment);
        let manifests = known.iter().flat_map(CopyReport::states).filter_map(|state| state.manifest.as_ref());
        if manifests.into_iter().any(wanted) {
            self.found_damage(segment);
        }
    }

    /// Tells the monitors at once. The answer does not wait for it. At most one task per segment reads.
    fn found_damage(&self, segment: SegmentId) {
        let segments = self.clone();
        tokio::spawn(async move { segments.refresh_unless_read(segment).await });
    }
}

fn no_such_segment(number: u8) -> Response {
    answer(StatusCode::NOT_FOUND, problem::NOT_FOUND, format!("there is no segment {number}, the last is 15"))
}

fn disk_failed(error: &io::Error) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "cannot read a segment's file");
    answer(StatusCode::SERVICE_UNAVAILABLE, problem::DAMAGED_BLOCK, format!("the disk failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-0"), Some((0, 1)));
        assert_eq!(parse_range("bytes=4096-8191"), Some((4096, 4096)));
        for wrong in ["", "bytes=", "bytes=-5", "bytes=5-", "bytes=9-8", "0-1", "bytes=0-18446744073709551615"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
