//! How late heartbeats are, or how long silences last: a histogram of fixed size, and an extrapolation of its tail.

/// Bins per octave.
const FINE: u32 = 8;
/// Range: 2^-12 to 2^12 intervals. Smaller values are in the lowest bin, larger ones in the highest.
const LOWEST: i32 = -12;
const BINS: usize = 24 * FINE as usize;

/// Numbers of largest values from which the tail is extrapolated.
const TOPS: [u32; 3] = [8, 32, 128];
/// What this many values exceeded needs no extrapolation.
const SEEN: f64 = 8.0;
/// A gap in the tail: a value this many times larger than the next one.
const APART: f64 = 4.0;
/// If the mean of the largest values exceeds this multiple of their minimum, the tail is not a network's.
const SMOOTH: f64 = 1.5;
/// Number of values from which a share is known well enough.
const ENOUGH: f64 = 64.0;
/// An extrapolation from few is cut off at this multiple of their mean, or at `furthest`.
const TIMES: f64 = 6.0;

/// Values in intervals.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: [u32; BINS],
    total: u32,
    /// No bin above this one has counts.
    top: usize,
    /// Above this total all counts are halved, so that old values fade.
    most: u32,
    /// Intervals: limit of an extrapolation from few values.
    furthest: f64,
}

impl Histogram {
    pub(super) fn new(most: u32, furthest: f64) -> Self {
        Self { counts: [0; BINS], total: 0, top: 0, most, furthest }
    }

    pub(super) fn reset(&mut self) {
        (self.counts, self.total, self.top) = ([0; BINS], 0, 0);
    }

    pub(super) fn add(&mut self, value: f64) {
        let bin = bin(value);
        self.counts[bin] += 1;
        self.top = self.top.max(bin);
        self.total += 1;
        if self.total > self.most {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Upper bound of the largest value.
    pub(super) fn largest(&self) -> f64 {
        let counts = &self.counts[..=self.top];
        counts.iter().rposition(|&count| count > 0).map_or(0.0, upper)
    }

    /// Whether large values are significantly more frequent here than in the others.
    pub(super) fn is_worse_than(&self, others: &Self) -> bool {
        let part = f64::from(self.total) / f64::from(others.total.max(1));
        let (mut here, mut expected) = (0.0, 0.0);
        let top = self.top.max(others.top);
        for (&count, &other) in self.counts[..=top].iter().zip(&others.counts[..=top]).rev() {
            here += f64::from(count);
            expected += f64::from(other) * part;
            if here > expected + 4.0 * f64::sqrt(expected) + 2.5 {
                return true;
            }
            if expected > ENOUGH {
                break;
            }
        }
        false
    }

    /// Whether the largest values form one smooth tail without gaps. Networks make such tails; pauses add a separate group.
    pub(super) fn is_smooth(&self) -> bool {
        let (mut above, mut sum) = (0.0, 0.0);
        let mut tops = TOPS.iter().map(|&top| f64::from(top)).peekable();
        let mut before = None;
        for (n, &count) in self.counts[..=self.top].iter().enumerate().rev().filter(|(_, count)| **count > 0) {
            if n == 0 || before.is_some_and(|before| before > APART * upper(n)) {
                return false;
            }
            before = Some(lower(n));
            above += f64::from(count);
            sum += f64::from(count) * middle(n);
            while tops.next_if(|&top| above >= top).is_some() {
                if sum / above > SMOOTH * lower(n) {
                    return false;
                }
            }
            if tops.peek().is_none() {
                break;
            }
        }
        true
    }

    /// What one value in `1 / share` exceeds. Within the observed range it is the quantile. Beyond it, an exponential tail is extrapolated
    /// from several numbers of largest values, and the largest result counts. A group of far larger values than all others is extrapolated
    /// on its own; the fewer it has, the further.
    pub(super) fn exceeded_by(&self, share: f64) -> f64 {
        let wanted = share * f64::from(self.total);
        let (mut above, mut sum, mut furthest) = (0.0, 0.0, 0.0_f64);
        let mut tops = TOPS.iter().map(|&top| f64::from(top)).peekable();
        let mut before = None;
        for (n, &count) in self.counts[..=self.top].iter().enumerate().rev() {
            if count == 0 {
                continue;
            }
            if before.is_some_and(|before| before > APART * upper(n)) && wanted < SEEN {
                // Posterior predictive of an exponential with a mean estimated from few values: a Lomax distribution.
                let times = above * ((above / wanted).max(1.0).powf(1.0 / above) - 1.0);
                let kind = upper(n) + (sum / above - upper(n)) * times;
                furthest = furthest.max(kind.min(self.furthest.max(TIMES * sum / above)));
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
                // An exponential tail has the same mean excess everywhere.
                let from = if n == 0 { 0.0 } else { lower(n) };
                furthest = furthest.max(from + (sum / above - from) * (above / wanted).ln().max(0.0));
            }
            if tops.peek().is_none() {
                break;
            }
        }
        furthest
    }
}

/// By the exponent and the first bits of the mantissa: eight bins per power of two.
fn bin(value: f64) -> usize {
    if value < f64::exp2(f64::from(LOWEST)) {
        return 0;
    }
    let bits = value.to_bits() >> (52 - FINE.trailing_zeros());
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
    fn a_value_is_within_its_bin() {
        for value in [0.000_3, 0.01, 0.1, 0.999, 1.0, 1.124, 1.126, 7.9, 200.0] {
            let bin = bin(value);
            assert!(lower(bin) <= value && value < upper(bin), "{value}: {} {}", lower(bin), upper(bin));
        }
        assert_eq!((bin(-1.0), bin(0.0), bin(1e9)), (0, 0, BINS - 1));
    }

    #[test]
    fn a_tail_is_continued() {
        let mut lateness = Histogram::new(1 << 20, 30.0);
        // P(X > x) = x^-2 from 0.01 on.
        for n in 0..10_000 {
            lateness.add(0.01 * ((f64::from(n) + 0.5) / 10_000.0).powf(-0.5));
        }
        let within = lateness.exceeded_by(0.01);
        assert!((0.1..0.12).contains(&within), "{within}");
        let beyond = lateness.exceeded_by(1e-6);
        // Extrapolated from 10,000 heartbeats, of which the latest was 1.4 late.
        assert!((1.0..20.0).contains(&beyond), "{beyond}");
    }

    /// Quantiles of an exponential distribution with this mean.
    fn exponential(lateness: &mut Histogram, number: u32, mean: f64) {
        (0..number).for_each(|n| lateness.add(-mean * ((f64::from(n) + 0.5) / f64::from(number)).ln()));
    }

    #[test]
    fn the_fewer_of_a_kind_were_seen_the_further_it_may_go() {
        let mut lateness = Histogram::new(1 << 20, 1e9);
        exponential(&mut lateness, 100_000, 0.001);
        assert!(lateness.is_smooth() && lateness.exceeded_by(1e-7) < 0.03);
        let mut before = f64::INFINITY;
        for number in [1, 2, 4, 16] {
            let mut lateness = lateness.clone();
            (0..number).for_each(|_| lateness.add(0.3));
            let exceeded = lateness.exceeded_by(1e-7);
            assert!(!lateness.is_smooth() && (1.0..before).contains(&exceeded), "{number}: {exceeded}");
            before = exceeded;
        }
    }

    #[test]
    fn chance_makes_nothing_worse() {
        let (mut overall, mut recent) = (Histogram::new(1 << 20, 30.0), Histogram::new(4_096, 30.0));
        exponential(&mut overall, 100_000, 0.01);
        exponential(&mut recent, 1_000, 0.01);
        assert!(!recent.is_worse_than(&overall) && recent.largest() < overall.largest());
        exponential(&mut recent, 10, 0.3);
        assert!(recent.is_worse_than(&overall));
    }

    #[test]
    fn old_values_fade() {
        let mut lateness = Histogram::new(1_000, 30.0);
        (0..100).for_each(|_| lateness.add(4.0));
        (0..100_000).for_each(|_| lateness.add(0.01));
        assert!(lateness.exceeded_by(0.01) < 0.02 && lateness.total <= 1_001);
    }
}
