//! Support for tests: a test that cannot run here is counted as skipped instead of passing silently.

use std::{fs::File, io::Write as _};

/// True if each of these programs is installed (`"mariadbd|mysqld"`: one of the two); otherwise the test is counted as
/// skipped and should return.
pub fn have(programs: &[&str]) -> bool {
    let installed = |names: &str| crate::find_program(&names.split('|').collect::<Vec<_>>()).is_some();
    let missing: Vec<&str> = programs.iter().copied().filter(|names| !installed(names)).collect();
    if !missing.is_empty() {
        skip(&format!("{} not installed", missing.join(", ")));
    }
    missing.is_empty()
}

/// True if Kafka can be started; otherwise the test is counted as skipped and should return. The first call may fetch Kafka.
pub async fn have_kafka() -> bool {
    let provided = crate::kafka::provide().await;
    if let Err(reason) = &provided {
        skip(&format!("Kafka: {reason}"));
    }
    provided.is_ok()
}

/// True under `./testbed test --full`; otherwise the test is counted as skipped and should return.
pub fn full() -> bool {
    let full = std::env::var_os("TESTBED_FULL").is_some_and(|value| value == "1");
    if !full {
        skip("long test, runs with ./testbed test --full");
    }
    full
}

/// Counts the running test as skipped: call once, then return. Prints `SKIP: …` and appends the line to the file `$TESTBED_SKIP_FILE`,
/// which `./testbed test` counts.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP: {}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TESTBED_SKIP_FILE") {
        // One short write with O_APPEND: lines of parallel tests do not interleave.
        let written =
            File::options().append(true).create(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("a skipped test that is not counted would look like one that passed");
    }
}
