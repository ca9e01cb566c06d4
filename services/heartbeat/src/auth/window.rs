//! Which beats of one sender were received: the newest, and a bit for each of the 64 up to it. Pure.

/// Zero-sized memory for a sender unheard of: incarnation 0, sequence 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayWindow {
    pub incarnation: u64,
    /// The highest received.
    pub sequence: u64,
    /// Bit n: `sequence - n` was received.
    seen: u64,
}

/// What a beat's number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// First of its sender, or of the sender's new incarnation.
    First,
    /// Newer than all before.
    Newer,
    /// Overtaken on the way, and not received before.
    Late,
    /// The sender does not count.
    Unnumbered,
    Repeated,
    TooOld,
    StaleIncarnation,
}

impl Verdict {
    pub fn accepted(self) -> bool {
        matches!(self, Self::First | Self::Newer | Self::Late | Self::Unnumbered)
    }
}

impl ReplayWindow {
    /// As the first beat of a sender makes it.
    pub fn opened(incarnation: u64, sequence: u64) -> Self {
        Self { incarnation, sequence, seen: 1 }
    }

    /// Takes note of a beat unless it is refused.
    pub fn check(&mut self, incarnation: u64, sequence: u64) -> Verdict {
        if incarnation < self.incarnation {
            return Verdict::StaleIncarnation;
        }
        if incarnation > self.incarnation {
            *self = Self::opened(incarnation, sequence);
            return Verdict::First;
        }
        if sequence == 0 {
            return Verdict::Unnumbered;
        }
        if sequence > self.sequence {
            let ahead = sequence - self.sequence;
            self.seen = if ahead < 64 { self.seen << ahead | 1 } else { 1 };
            self.sequence = sequence;
            return Verdict::Newer;
        }
        let behind = self.sequence - sequence;
        if behind >= 64 {
            return Verdict::TooOld;
        }
        let bit = 1 << behind;
        if self.seen & bit != 0 {
            return Verdict::Repeated;
        }
        self.seen |= bit;
        Verdict::Late
    }
}
