//! `plan`.

use std::path::PathBuf;

use clap::Args;

/// Show which replica counts Kubernetes' autoscaler would choose, and why, without a cluster
#[derive(Args)]
#[command(after_help = "A line of input is a JSON object with `id` and `kind`, a line of output is the answer with the
same `id`.

Kinds:
  resource   replicas from CPU or memory of pods
  external   replicas from an external metric, such as a queue's lag
  stabilize  the stabilisation windows
  rate       the scaling policies
  normalize  windows, policies and limits together
  reconcile  whole steps, with the history kept from step to step

Answers are those of Kubernetes v1.37.2, with `explain`: a sentence for each rule that changed the
number. Missing metrics and requests are answers with an `error`. A line that is not valid is
reported on standard error with its number and field; the other lines are answered, and the exit
code is 1. A line has at most 16 MiB.

Examples:
  ./testbed plan cases.ndjson                     answers as JSON, one per line
  ./testbed plan cases.ndjson --table             the same for people
  ./testbed plan --hpa hpa.yaml < cases.ndjson    limits, metrics and behaviour from a manifest
  ./testbed plan cases.ndjson | jq -r '.id, .explain[]'
  ./testbed plan --hpa docs/examples/hpa.yaml docs/examples/holiday.ndjson --table")]
pub struct PlanArgs {
    /// File with one case per line; `-` or nothing: standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// HorizontalPodAutoscaler (autoscaling/v2, YAML) for what the lines leave out: limits, metrics, behaviour
    #[arg(long, value_name = "FILE.yaml")]
    pub hpa: Option<PathBuf>,
    /// Print a table with explanations instead of JSON
    #[arg(long)]
    pub table: bool,
}
