//! Rankings in TREC's formats, so that other evaluators can judge them: <https://github.com/usnistgov/trec_eval>.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use model::{Dataset, JudgedUser, QualityReport};

/// Measures the quality, and writes `qrels` (the held-out item of each user) and `run` (the model's list of each user).
///
/// # Errors
/// The directory or a file cannot be written, or there is no user to evaluate.
pub fn write(dataset: &Dataset, dir: &Path) -> anyhow::Result<QualityReport> {
    fs::create_dir_all(dir)?;
    let mut qrels = BufWriter::new(File::create(dir.join("qrels"))?);
    let mut run = BufWriter::new(File::create(dir.join("run"))?);
    let mut written = Ok(());
    let report = model::leave_last_out_each(dataset, |user| {
        if written.is_ok() {
            written = add(&user, &mut qrels, &mut run);
        }
    })?;
    written?;
    qrels.flush()?;
    run.flush()?;
    Ok(report)
}

fn add(user: &JudgedUser, qrels: &mut impl Write, run: &mut impl Write) -> io::Result<()> {
    let JudgedUser { user, held_out, ranked } = user;
    writeln!(qrels, "{user} 0 {held_out} 1")?;
    for (place, item) in ranked.iter().enumerate() {
        // Evaluators sort by score: the model's own may be equal.
        writeln!(run, "{user} Q0 {item} {} {} testbed", place + 1, ranked.len() - place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order() {
        let user = JudgedUser { user: "u1", held_out: "b", ranked: vec!["a", "b"] };
        let (mut qrels, mut run) = (Vec::new(), Vec::new());
        add(&user, &mut qrels, &mut run).unwrap();
        assert_eq!(String::from_utf8(qrels).unwrap(), "u1 0 b 1\n");
        assert_eq!(String::from_utf8(run).unwrap(), "u1 Q0 a 1 2 testbed\nu1 Q0 b 2 1 testbed\n");
    }
}
