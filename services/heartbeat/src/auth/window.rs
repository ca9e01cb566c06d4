//! Replay window of one sender: the highest sequence number, and a bit for each of the 64 up to it. Pure.

/// The default is the window of an unknown sender: incarnation 0, sequence 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayWindow {
    pub incarnation: u64,
    /// The highest received.
    pub sequence: u64,
    /// Bit n: `sequence - n` was received.
    seen: u64,
}

/// Result of a check against the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// First of its sender, or of the sender's new incarnation.
    First,
    /// Newer than all before.
    Newer,
    /// Received out of order, for the first time.
    Late,
    /// The sender does not number its heartbeats.
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
    /// The window after a sender's first heartbeat.
    pub fn opened(incarnation: u64, sequence: u64) -> Self {
        Self { incarnation, sequence, seen: 1 }
    }

    /// Checks a heartbeat, and records it if it is accepted.
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
