//! `fault segment`: damages a worker's copy of a segment of the model.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use contract::SegmentId;
use launcher::Description;
use tokio::time::{Instant, sleep};

use crate::{
    cli::SegmentAction,
    commands::{own_stack, status},
    instruments::segment_damage::{self, Backup},
    stack::{control_plane::segments_of, endpoints},
};

/// How long `old` waits for a newer version.
const NEWER_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// # Errors
/// The stack is another one, the worker has no copy, or a file cannot be changed.
pub async fn run(action: SegmentAction, segment: u8, worker: Option<u16>, block: u32) -> anyhow::Result<()> {
    if endpoints::elsewhere()?.is_some() {
        bail!(
            "cannot damage files: {} describes a stack that `up` has not started, whose disks are elsewhere",
            endpoints::VARIABLE
        );
    }
    let stack = own_stack()?;
    let segment = SegmentId::new(segment).context("segments have numbers from 0 to 15")?;
    let worker = match worker {
        Some(number) => format!("worker-{number}"),
        None => primary(&stack, segment).await?,
    };
    let directory = directory(&stack, &worker)?;
    match action {
        SegmentAction::Flip => {
            segment_damage::flip(&directory, segment, &[block])?;
            println!("a bit of block {block} of segment {segment} on {worker} is flipped");
        }
        SegmentAction::Manifest => {
            segment_damage::manifest(&directory, segment)?;
            println!("the manifest of segment {segment} on {worker} is damaged");
        }
        SegmentAction::Truncate => {
            segment_damage::truncate(&directory, segment, 1)?;
            println!("the file of segment {segment} on {worker} is cut off after one block");
        }
        SegmentAction::Delete => {
            segment_damage::delete(&directory)?;
            println!("the directory of {worker} with all its segments is removed");
        }
        SegmentAction::Old => {
            let backup = Backup::take(&directory, segment)?;
            eprintln!("waiting for the next version of segment {segment} on {worker}");
            let begun = Instant::now();
            while !backup.is_replaced(&directory, segment) {
                if begun.elapsed() > NEWER_WITHIN {
                    bail!(
                        "no newer version came within {} s: versions need events, e.g. ./testbed load events --rate 50",
                        NEWER_WITHIN.as_secs()
                    );
                }
                sleep(POLL).await;
            }
            backup.restore(&directory, segment)?;
            println!("{worker} has the former version of segment {segment} again");
        }
    }
    Ok(())
}

async fn primary(stack: &Description, segment: SegmentId) -> anyhow::Result<String> {
    let primary = status::primary(&stack.endpoints, segment.index()).await?;
    primary.with_context(|| format!("segment {segment} has no primary: choose a worker with --worker"))
}

fn directory(stack: &Description, worker: &str) -> anyhow::Result<PathBuf> {
    let directory = stack.endpoints.get(&segments_of(worker));
    directory.map(PathBuf::from).with_context(|| format!("the running stack has no segments on {worker}"))
}
