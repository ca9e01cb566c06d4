//! Stacks of real servers and our processes to measure: the service, the control plane (etcd, monitors, workers), and a monitor alone.

pub mod control_plane;
pub mod endpoints;
pub mod service;
pub mod test_monitor;
