//! The latest samples, with exact sums.

/// Samples in nanoseconds, clamped to ±2^53 (104 days).
#[derive(Debug, Clone)]
pub(super) struct Window {
    samples: Vec<i64>,
    capacity: usize,
    /// Index of the next sample when the window is full.
    next: usize,
    sum: i64,
    squares: i128,
}

const LARGEST: i64 = 1 << 53;

impl Window {
    /// `capacity` is clamped to 1..=1000.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, MAX);
        Self { samples: Vec::with_capacity(capacity), capacity, next: 0, sum: 0, squares: 0 }
    }

    pub(super) fn push(&mut self, sample: i64) {
        let sample = sample.clamp(-LARGEST, LARGEST);
        if self.samples.len() < self.capacity {
            self.samples.push(sample);
        } else {
            let out = std::mem::replace(&mut self.samples[self.next], sample);
            self.next = (self.next + 1) % self.capacity;
            self.sum -= out;
            self.squares -= i128::from(out) * i128::from(out);
        }
        self.sum += sample;
        self.squares += i128::from(sample) * i128::from(sample);
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum as f64
    }

    /// 0 without samples.
    pub(super) fn mean(&self) -> f64 {
        self.sum as f64 / self.len().max(1) as f64
    }

    /// Standard deviation of the samples, not an estimate of the population's.
    pub(super) fn deviation(&self) -> f64 {
        let n = self.len().max(1) as i128;
        let sum = i128::from(self.sum);
        // Exact up to here: the difference of two large numbers.
        let scaled = n * self.squares - sum * sum;
        (scaled.max(0) as f64).sqrt() / n as f64
    }
}

/// |sum| ≤ 2^53 × 1,000 < 2^63.
const MAX: usize = 1_000;
