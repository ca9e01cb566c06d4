//! The report as its readers get it: made-up figures in, structure out.

use super::Tolerances;
use super::schema::*;
use super::{html, markdown, sample, terminal, write_all};

mod diffing;
mod experimenting;
mod html_page;
mod judging;
mod recorded;
mod texts;
