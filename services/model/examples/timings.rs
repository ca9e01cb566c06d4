//! `cargo run --release -p model --example timings [FILE]`: durations for the default dataset or a file, and the quality of
//! the model.

use std::{error::Error, hint::black_box, num::NonZero, time::Instant};

use model::{
    BadRows, GenerateParams, HistoryItem, Interaction, NeighbourModel, Scratch, generate, leave_last_out, parse,
    write_csv,
};

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let data = match std::env::args().nth(1) {
        Some(file) => parse(std::fs::File::open(file)?, BadRows::Skip)?.0,
        None => generate(&GenerateParams::default())?,
    };
    println!("read or generated in {:?}: {} events", started.elapsed(), data.events.len());

    let started = Instant::now();
    let mut csv = Vec::new();
    write_csv(&data, &mut csv)?;
    println!("{} bytes of CSV written in {:?}", csv.len(), started.elapsed());
    let started = Instant::now();
    parse(csv.as_slice(), BadRows::Refuse)?;
    println!("CSV read in {:?}", started.elapsed());

    for threads in [1, 2] {
        let started = Instant::now();
        let threads = NonZero::new(threads).ok_or("no threads")?;
        black_box(NeighbourModel::build(&data, threads));
        println!("built with {threads} thread(s) in {:?}", started.elapsed());
    }
    let model = NeighbourModel::build(&data, NonZero::<usize>::MIN);
    let started = Instant::now();
    let (header, rows) = model.to_rows();
    let rows: Vec<_> = rows.map(|(id, row)| (id.to_string(), row)).collect();
    let size: usize = rows.iter().map(|(_, row)| row.len()).sum();
    println!("{} + {size} bytes encoded in {:?}", header.len(), started.elapsed());
    let started = Instant::now();
    let again = NeighbourModel::from_rows(&header, rows)?;
    println!("decoded in {:?}, equal: {}", started.elapsed(), again == model);

    let positions: Vec<Option<u32>> = data.items.iter().map(|id| model.index_of(id.as_str())).collect();
    let position = |event: &Interaction| positions[event.item as usize];
    let mut scratch = Scratch::default();
    for length in [12, 100] {
        let histories: Vec<Vec<HistoryItem>> = data
            .events
            .chunks(length)
            .take(20_000)
            .map(|events| {
                events.iter().filter_map(|e| Some(HistoryItem { item: position(e)?, weight: e.weight })).collect()
            })
            .collect();
        let started = Instant::now();
        for history in &histories {
            black_box(model.rank(black_box(history), 20, &mut scratch));
        }
        println!("rank, {length} events of history: {:?}", started.elapsed() / histories.len() as u32);
    }

    let started = Instant::now();
    let report = leave_last_out(&data)?;
    println!("quality in {:?}: {report:#?}", started.elapsed());
    Ok(())
}
