//! Answers the cases on stdin, and says how long that took. `cargo run --release -p autoscaler --example speed < CASES > ANSWERS`

use std::{
    io::{self, Read, Write},
    time::Instant,
};

use autoscaler::line;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let start = Instant::now();
    let (mut output, mut cases) = (Vec::new(), 0);
    for bytes in input.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()) {
        let answer = line::answer(&line::parse(bytes)?)?;
        serde_json::to_writer(&mut output, &answer)?;
        output.push(b'\n');
        cases += 1;
    }
    let took = start.elapsed();
    io::stdout().write_all(&output)?;
    eprintln!("{cases} cases in {} ms", took.as_millis());
    Ok(())
}
