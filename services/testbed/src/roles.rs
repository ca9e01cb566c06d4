//! Processes that only measurements need; `testbed serve ROLE` starts them.

pub mod bare;
pub mod fleet;
pub mod group_consumer;
pub mod hammer;
pub mod sink;
pub mod topic_reader;
