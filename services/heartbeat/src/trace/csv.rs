//! Traces as CSV: `seq,send_ns,recv_ns`, one heartbeat per line, `lost` for one that did not arrive.

use std::io::{self, BufRead, Write};

use statistics::median;
use thiserror::Error;

use super::{SentBeat, Trace};
use crate::Nanos;

const HEAD: &str = "seq,send_ns,recv_ns";
/// 292 years; sums of two cannot overflow.
const LATEST: Nanos = 1 << 63;

#[derive(Debug, Error)]
pub enum BadTrace {
    #[error("cannot read the trace")]
    Unreadable(#[from] io::Error),
    #[error(
        "line {0}: {1}; a line is {HEAD}, in whole nanoseconds, with 'lost' in the place of recv_ns for a lost beat"
    )]
    BadLine(usize, String),
    #[error("line {0}: beat {1} comes after beat {2}; beats must be in the order sent, each once")]
    OutOfOrder(usize, u64, u64),
    #[error("line {0}: beat {1} was sent before the beat before it")]
    SentEarlier(usize, u64),
    #[error(
        "line {0}: beat {1} was received {2} ns before it was sent: the clocks differ; both stamps must be of one clock, so subtract the \
         difference from recv_ns"
    )]
    ReceivedEarlier(usize, u64, Nanos),
    #[error("fewer than two heartbeats arrived; a trace needs at least two")]
    TooShort,
}

impl Trace {
    /// Reads a trace. The header is optional; empty lines and lines that begin with # are skipped. The default interval is the median time
    /// between two sent heartbeats.
    ///
    /// # Errors
    /// See [`BadTrace`]; each names its line.
    pub fn read(from: impl BufRead, interval: Option<Nanos>) -> Result<Self, BadTrace> {
        let mut beats: Vec<SentBeat> = Vec::new();
        for (number, line) in from.lines().enumerate() {
            let (number, line) = (number + 1, line?);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.replace(' ', "") == HEAD {
                continue;
            }
            let beat = beat(line).map_err(|why| BadTrace::BadLine(number, why))?;
            if let Some(early) = beat.received.and_then(|at| beat.sent.checked_sub(at)).filter(|&early| early > 0) {
                return Err(BadTrace::ReceivedEarlier(number, beat.sequence, early));
            }
            if let Some(before) = beats.last() {
                if beat.sequence <= before.sequence {
                    return Err(BadTrace::OutOfOrder(number, beat.sequence, before.sequence));
                }
                if beat.sent < before.sent {
                    return Err(BadTrace::SentEarlier(number, beat.sequence));
                }
            }
            beats.push(beat);
        }
        if beats.iter().filter(|beat| beat.received.is_some()).count() < 2 {
            return Err(BadTrace::TooShort);
        }
        let interval = interval.unwrap_or_else(|| median_interval(&beats)).max(1);
        Ok(Self { interval, beats })
    }

    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        writeln!(to, "{HEAD}")?;
        for SentBeat { sequence, sent, received } in &self.beats {
            match received {
                Some(at) => writeln!(to, "{sequence},{sent},{at}")?,
                None => writeln!(to, "{sequence},{sent},lost")?,
            }
        }
        to.flush()
    }
}

fn beat(line: &str) -> Result<SentBeat, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [sequence, sent, received] = fields[..] else {
        return Err(format!("{} fields instead of 3", fields.len()));
    };
    let number = |text: &str, name: &str| {
        let number = text.parse().ok().filter(|number| *number < LATEST);
        number.ok_or_else(|| format!("{name} is '{}'", text.chars().take(40).collect::<String>()))
    };
    let received = if received == "lost" { None } else { Some(number(received, "recv_ns")?) };
    Ok(SentBeat { sequence: number(sequence, "seq")?, sent: number(sent, "send_ns")?, received })
}

fn median_interval(beats: &[SentBeat]) -> Nanos {
    let between = |pair: &[SentBeat]| (pair[1].sent - pair[0].sent) / (pair[1].sequence - pair[0].sequence);
    let intervals: Vec<f64> = beats.windows(2).map(|pair| between(pair) as f64).collect();
    median(&intervals).map_or(0, |nanos| nanos as Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Condition;

    fn read(text: &str) -> Result<Trace, String> {
        Trace::read(text.as_bytes(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_written_trace_is_read_back() {
        let trace = Condition::Bursts20.trace(100_000_000, 600_000_000_000, 1);
        let mut text = Vec::new();
        trace.write(&mut text).unwrap();
        assert_eq!(Trace::read(text.as_slice(), None).unwrap(), trace);
    }

    #[test]
    fn heads_comments_and_gaps_in_the_numbers_are_allowed() {
        let trace = read("# mine\nseq, send_ns, recv_ns\n1, 10, 15\n\n3,30,lost\n4,40,44\n").unwrap();
        assert_eq!((trace.interval, trace.beats.len()), (10, 3));
        assert_eq!(trace.beats[1], SentBeat { sequence: 3, sent: 30, received: None });
    }

    #[test]
    fn errors_name_the_line_and_the_way_out() {
        let error = |text| read(text).unwrap_err();
        assert!(error("1,10,15\n2,20\n").starts_with("line 2: 2 fields instead of 3; a line is seq,send_ns,recv_ns"));
        assert!(error("1,10,1.5e9\n").starts_with("line 1: recv_ns is '1.5e9'"));
        assert!(error("1,10,-3\n").starts_with("line 1: recv_ns is '-3'"));
        assert!(error("2,10,15\n1,20,25\n").starts_with("line 2: beat 1 comes after beat 2"));
        assert!(error("1,20,25\n2,10,15\n").starts_with("line 2: beat 2 was sent before"));
        assert!(
            error("1,10,15\n2,20,19\n")
                .starts_with("line 2: beat 2 was received 1 ns before it was sent: the clocks differ")
        );
        assert!(error("1,10,15\n2,20,lost\n").starts_with("fewer than two heartbeats arrived"));
        assert!(error("").starts_with("fewer than two heartbeats arrived"));
    }
}
