//! `testbed trace`.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::{Context, bail};
use serde::Serialize;
use tracestore::{Client, Selection, Trace};

use crate::{
    cli::TraceArgs,
    instruments::waterfall::{self, Style},
    stack::service,
};

pub async fn run(args: TraceArgs) -> anyhow::Result<ExitCode> {
    let stack = super::running_stack()?;
    let address = stack.endpoints.get(service::TRACES).with_context(|| {
        format!(
            "the running stack has no address called {}: it does not keep traces itself (with Docker Compose, see Grafana)",
            service::TRACES
        )
    })?;
    let client = Client::new(address)?;
    let style = Style::of_stdout();
    if let Some(id) = args.id {
        let trace = client.trace(id).await?;
        let trace = trace.with_context(|| {
            format!("no trace {id}: it was not sampled, or newer traces have replaced it. ./testbed trace lists the stored ones")
        })?;
        show(args.json, &trace, || waterfall::render(&trace, style))?;
        return Ok(ExitCode::SUCCESS);
    }
    let choice = match (args.slowest, args.errors) {
        (true, _) => Selection::Slowest,
        (_, true) => Selection::Errors,
        _ => Selection::Newest,
    };
    let limit = args.limit.map_or(if choice == Selection::Newest { 20 } else { 1 }, usize::from);
    let list = client.list(choice, limit).await?;
    if list.is_empty() && !args.json {
        bail!("{}", if choice == Selection::Errors { "no trace has failed" } else { NONE_YET });
    }
    if choice == Selection::Newest {
        show(args.json, &list, || waterfall::list(&list, style))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut traces: Vec<Trace> = Vec::new();
    for summary in list {
        // A newer trace may replace a listed one before this request.
        traces.extend(client.trace(summary.id).await?);
    }
    let texts = || traces.iter().map(|trace| waterfall::render(trace, style)).collect::<Vec<_>>().join("\n");
    show(args.json, &traces, texts)?;
    Ok(ExitCode::SUCCESS)
}

const NONE_YET: &str =
    "no trace yet: a trace is stored a few seconds after its request. ./testbed load smoke sends sampled requests";

fn show(json: bool, what: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(what)?);
    } else {
        print!("{}", text());
    }
    Ok(())
}

impl Style {
    fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        Self { width: width.unwrap_or(120), colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }
}
