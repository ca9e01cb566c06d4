//! How figures are taken: load on a stack, counters before and after, traces, the machine, and sides measured in turns.

pub mod access_log;
pub mod clock_watch;
pub mod codecs;
pub mod comparison;
pub mod counts;
pub mod cpu_watch;
pub mod event_lag;
pub mod file_readers;
pub mod generator;
pub mod machine;
pub mod measure;
pub mod recording;
pub mod scheduling;
pub mod scrape;
pub mod segment_damage;
pub mod segment_files;
pub mod target;
pub mod time_spent;
pub mod waterfall;
