//! A worker as a task of this process, with monitors that do not have the key.

mod forged;
