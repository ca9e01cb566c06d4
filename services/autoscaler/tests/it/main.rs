//! The planner against answers of Kubernetes' own code, on a clock of its own, and against bad input.

#![cfg(test)]

mod agreement;
mod article;
mod bad_input;
mod manifest;
mod slots;
mod words;
