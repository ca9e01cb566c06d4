//! Bands of latency, in which the requests of one second are counted. Each octave has two bands, as in an HDR histogram with one
//! significant bit.

use hdrhistogram::{Counter, Histogram};

/// The first band is below 2^8 µs, 0.256 ms.
const FIRST_OCTAVE: u32 = 8;
/// The last band is from 2^22 µs, 4.2 s.
const LAST_OCTAVE: u32 = 22;
/// Number of bands.
pub const BANDS: usize = 2 * (LAST_OCTAVE - FIRST_OCTAVE) as usize + 2;

/// Lower edge of a band, in ms; of those after the last one, that of the last one. The band ends where the next one begins.
pub fn lower_edge_ms(band: usize) -> f64 {
    let Some(above) = band.min(BANDS - 1).checked_sub(1) else { return 0.0 };
    let octave = 2_f64.powi(FIRST_OCTAVE as i32 + (above / 2) as i32);
    octave * if above % 2 == 0 { 1.0 } else { 1.5 } / 1000.0
}

/// Upper edge of a band, in ms; that of the last one is infinite.
pub fn upper_edge_ms(band: usize) -> f64 {
    if band + 1 < BANDS { lower_edge_ms(band + 1) } else { f64::INFINITY }
}

/// The band of a latency in µs.
fn band(us: u64) -> usize {
    let octave = us.max(1).ilog2();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let upper_half = (us >> (octave - 1)) & 1;
    (1 + 2 * (octave - FIRST_OCTAVE) as usize + upper_half as usize).min(BANDS - 1)
}

/// Requests in each band, without the empty bands at the end. The histogram is in µs, from 1 µs, with two digits or more: then none of its
/// own buckets crosses an edge.
pub(crate) fn counts<C: Counter>(histogram: &Histogram<C>) -> Vec<u64> {
    let mut counts = Vec::new();
    for bucket in histogram.iter_recorded() {
        let band = band(bucket.value_iterated_to());
        if counts.len() <= band {
            counts.resize(band + 1, 0);
        }
        counts[band] += bucket.count_at_value().as_u64();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_halves_of_octaves() {
        assert_eq!([0, 1, 2, 3, 4].map(lower_edge_ms), [0.0, 0.256, 0.384, 0.512, 0.768]);
        assert_eq!((BANDS, lower_edge_ms(BANDS - 1)), (30, 4194.304));
        assert_eq!((upper_edge_ms(0), upper_edge_ms(BANDS - 1)), (0.256, f64::INFINITY));
        assert_eq!(lower_edge_ms(usize::MAX), 4194.304);
        for at in 1..BANDS {
            let edge = (lower_edge_ms(at) * 1000.0) as u64;
            assert_eq!((band(edge - 1), band(edge)), (at - 1, at), "{edge}");
        }
        assert_eq!([0, 1, u64::MAX].map(band), [0, 0, BANDS - 1]);
    }

    #[test]
    fn a_histogram_of_two_digits_counts_each_latency_in_its_band() {
        let mut histogram = Histogram::<u32>::new_with_bounds(1, 60_000_000, 2).unwrap();
        let mut expected = vec![0; BANDS];
        for us in (1..200).chain((1..600).map(|n| n * 101)).chain([1_048_575, 1_048_576, 60_000_000]) {
            histogram.record(us).unwrap();
            expected[band(us)] += 1;
        }
        assert_eq!(counts(&histogram), expected);
        assert_eq!(counts(&Histogram::<u32>::new(2).unwrap()), [0; 0]);
        histogram.reset();
        histogram.record(300).unwrap();
        assert_eq!(counts(&histogram), [0, 1]);
    }
}
