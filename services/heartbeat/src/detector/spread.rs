//! How late beats are: a histogram of fixed size, and how far its tail will reach.

/// Bins per octave.
const FINE: u32 = 8;
/// 2^-12 to 2^8 intervals; what is less is the lowest bin, what is more the highest.
const LOWEST: i32 = -12;
const BINS: usize = 20 * FINE as usize;

/// Latest beats that the tail is continued from.
const TOPS: [u32; 3] = [8, 32, 128];
/// What was exceeded so often needs no continuation.
const SEEN: f64 = 8.0;
/// So many times later than the next is far later.
const APART: f64 = 2.5;

/// Lateness in intervals.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    counts: [u32; BINS],
    total: u32,
    /// Above it all counts are halved: what is old fades.
    most: u32,
}

impl Spread {
    pub(super) fn new(most: u32) -> Self {
        Self { counts: [0; BINS], total: 0, most }
    }

    pub(super) fn add(&mut self, late: f64) {
        self.counts[bin(late)] += 1;
        self.total += 1;
        if self.total > self.most {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// What one beat in `1 / share` will exceed. Within what was seen often enough it is that; beyond, the tail is continued as an
    /// exponential one from the latest few and from the latest many, whichever goes further. Beats that are far later than all
    /// others are a kind of their own, however few they are, and are continued as such.
    pub(super) fn exceeded_by(&self, share: f64) -> f64 {
        let wanted = share * f64::from(self.total);
        let (mut above, mut sum, mut furthest) = (0.0, 0.0, 0.0_f64);
        let mut tops = TOPS.iter().map(|&top| f64::from(top)).peekable();
        let mut before = None;
        for (n, &count) in self.counts.iter().enumerate().rev() {
            if count == 0 {
                continue;
            }
            // An exponential tail has the same mean excess everywhere: so far beyond `from` will the wanted one be.
            let continued =
                |from: f64, above: f64, sum: f64| from + (sum / above - from) * (above / wanted).ln().max(0.0);
            if before.is_some_and(|before| before > APART * upper(n)) && wanted < SEEN {
                // Of one alone nothing is known but itself.
                let kind = if above < 2.0 { sum } else { continued(upper(n), above, sum) };
                furthest = furthest.max(kind);
            }
            before = Some(lower(n));
            above += f64::from(count);
            sum += f64::from(count) * middle(n);
            if wanted >= SEEN {
                if above >= wanted {
                    return upper(n);
                }
                continue;
            }
            while tops.next_if(|&top| above >= top).is_some() {
                furthest = furthest.max(continued(if n == 0 { 0.0 } else { lower(n) }, above, sum));
            }
            if tops.peek().is_none() {
                break;
            }
        }
        furthest
    }
}

/// By the exponent and the first bits of the mantissa: eight bins, evenly spaced, between two powers of two.
fn bin(late: f64) -> usize {
    if late < f64::exp2(f64::from(LOWEST)) {
        return 0;
    }
    let bits = late.to_bits() >> (52 - FINE.trailing_zeros());
    let lowest = ((1023 + LOWEST) as u64) << FINE.trailing_zeros();
    ((bits - lowest) as usize).min(BINS - 1)
}

fn lower(bin: usize) -> f64 {
    let (octave, part) = (bin as i32 / FINE as i32, bin as i32 % FINE as i32);
    f64::exp2(f64::from(LOWEST + octave)) * (1.0 + f64::from(part) / f64::from(FINE))
}

fn upper(bin: usize) -> f64 {
    lower(bin + 1)
}

fn middle(bin: usize) -> f64 {
    0.5 * (lower(bin) + upper(bin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_within_its_bin() {
        for value in [0.000_3, 0.01, 0.1, 0.999, 1.0, 1.124, 1.126, 7.9, 200.0] {
            let bin = bin(value);
            assert!(lower(bin) <= value && value < upper(bin), "{value}: {} {}", lower(bin), upper(bin));
        }
        assert_eq!((bin(-1.0), bin(0.0), bin(1e9)), (0, 0, BINS - 1));
    }

    #[test]
    fn a_tail_is_continued() {
        let mut spread = Spread::new(1 << 20);
        // P(X > x) = x^-2 from 0.01 on.
        for n in 0..10_000 {
            spread.add(0.01 * ((f64::from(n) + 0.5) / 10_000.0).powf(-0.5));
        }
        let within = spread.exceeded_by(0.01);
        assert!((0.1..0.12).contains(&within), "{within}");
        let beyond = spread.exceeded_by(1e-6);
        // As 10,000 beats tell it: the latest was 1.4 late.
        assert!((1.0..20.0).contains(&beyond), "{beyond}");
    }

    #[test]
    fn what_is_old_fades() {
        let mut spread = Spread::new(1_000);
        (0..100).for_each(|_| spread.add(4.0));
        (0..100_000).for_each(|_| spread.add(0.01));
        assert!(spread.exceeded_by(0.01) < 0.02 && spread.total <= 1_001);
    }
}
