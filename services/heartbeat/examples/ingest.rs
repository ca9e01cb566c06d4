//! While tuning: `cargo run --release -p heartbeat --example ingest`. `testbed bench heartbeats` measures the same properly.

use heartbeat::bench;

fn main() -> std::io::Result<()> {
    for mode in bench::Mode::ALL {
        for _ in 0..3 {
            let run = bench::ingest(mode, std::time::Duration::from_secs(2), 10_000)?;
            println!("{}: {run:?}", mode.name());
        }
    }
    println!("{:?}", bench::table(1_000_000, 3)?);
    Ok(())
}
