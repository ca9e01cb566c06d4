//! The report as its readers get it: made-up figures in, structure out.

use super::{
    Document, Findings, Tolerances, Validity, Verdict, html, markdown, sample, schema::*, terminal, write_findings,
    write_report,
};

mod adding_up;
mod arrivals;
mod attempts;
mod comparing;
mod controls;
mod diffing;
mod experiments;
mod fitting;
mod foreign;
mod html_page;
mod json_schema;
mod judging;
mod recorded;
mod retries;
mod schema_walk;
mod texts;
