//! Stacks of real servers and our processes to measure: the service, the control plane (etcd, monitors, workers), both with
//! Kafka for experiments about events, and a monitor alone.

pub mod control_plane;
pub mod endpoints;
pub mod event_stack;
pub mod service;
pub mod test_monitor;
