//! Framing of the MySQL protocol: a packet is 3 bytes of length, 1 byte of sequence id and the payload. A payload of
//! 2^24 − 1 bytes is continued by the next packet. Nothing here does I/O or allocates.

/// Payload length that says "continued in the next packet".
pub const MAX_PAYLOAD: u32 = 0x00ff_ffff;
/// Maximum payload bytes that a `Framer` stores: an OK packet's status flags are in the first 21.
pub const PREFIX: usize = 24;

/// Why a connection was closed: bytes that violate the protocol, or a feature that the proxy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("wrong sequence id")]
    Sequence,
    #[error("connection ended inside a packet")]
    Truncated,
    #[error("empty packet")]
    Empty,
    #[error("response that violates the protocol")]
    Response,
    #[error("packet from the server that answers no command")]
    Unsolicited,
    #[error("packet from the client before the server's greeting")]
    BeforeGreeting,
    #[error("unreadable greeting")]
    Greeting,
    #[error("unreadable handshake")]
    Handshake,
    #[error("handshake too long")]
    OversizedHandshake,
    #[error("client uses a capability the server did not offer")]
    Capability,
    #[error("LOCAL INFILE is refused")]
    LocalInfile,
    #[error("replication and clone commands are refused")]
    UnsupportedCommand,
}

impl Malformed {
    pub const ALL: [Self; 12] = [
        Self::Sequence,
        Self::Truncated,
        Self::Empty,
        Self::Response,
        Self::Unsolicited,
        Self::BeforeGreeting,
        Self::Greeting,
        Self::Handshake,
        Self::OversizedHandshake,
        Self::Capability,
        Self::LocalInfile,
        Self::UnsupportedCommand,
    ];

    /// Value of the metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::Response => "response",
            Self::Unsolicited => "unsolicited",
            Self::BeforeGreeting => "before_greeting",
            Self::Greeting => "greeting",
            Self::Handshake => "handshake",
            Self::OversizedHandshake => "oversized_handshake",
            Self::Capability => "capability",
            Self::LocalInfile => "local_infile",
            Self::UnsupportedCommand => "unsupported_command",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Header and wanted prefix have arrived: see `Framer::packet`.
    Start,
    /// The packet's last byte was consumed.
    End,
}

/// The current packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Length of the payload in bytes.
    pub len: u32,
    pub seq: u8,
    /// Beginning of the payload; shorter than wanted only if the payload is.
    pub prefix: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Header,
    Prefix,
    Body,
}

/// Splits a byte stream into packets.
#[derive(Debug, Clone)]
pub struct Framer {
    at: Section,
    wanted: u8,
    have: u8,
    /// Payload bytes not consumed yet.
    left: u32,
    header: [u8; 4],
    prefix: [u8; PREFIX],
}

impl Framer {
    /// Stores `wanted` ≤ `PREFIX` payload bytes of each packet.
    pub fn new(wanted: u8) -> Self {
        debug_assert!(usize::from(wanted) <= PREFIX);
        Self { at: Section::Header, wanted, have: 0, left: 0, header: [0; 4], prefix: [0; PREFIX] }
    }

    /// Consumes input up to the next event; `None`: all input was consumed, more is needed.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Event> {
        if self.at == Section::Header {
            let take = input.len().min(4 - usize::from(self.have));
            let have = usize::from(self.have);
            self.header[have..have + take].copy_from_slice(&input[..take]);
            *input = &input[take..];
            self.have += take as u8;
            if self.have < 4 {
                return None;
            }
            self.left = u32::from_le_bytes([self.header[0], self.header[1], self.header[2], 0]);
            self.have = 0;
            self.at = Section::Prefix;
        }
        if self.at == Section::Prefix {
            let have = usize::from(self.have);
            let missing = (usize::from(self.wanted) - have).min(self.left as usize);
            let take = input.len().min(missing);
            self.prefix[have..have + take].copy_from_slice(&input[..take]);
            *input = &input[take..];
            self.have += take as u8;
            self.left -= take as u32;
            if take < missing {
                return None;
            }
            self.at = Section::Body;
            return Some(Event::Start);
        }
        let take = input.len().min(self.left as usize);
        *input = &input[take..];
        self.left -= take as u32;
        if self.left > 0 {
            return None;
        }
        self.at = Section::Header;
        self.have = 0;
        Some(Event::End)
    }

    /// Valid from `Event::Start` until the next call of `next`.
    pub fn packet(&self) -> Packet<'_> {
        let len = u32::from_le_bytes([self.header[0], self.header[1], self.header[2], 0]);
        Packet { len, seq: self.header[3], prefix: &self.prefix[..usize::from(self.have).min(PREFIX)] }
    }

    /// Inside a packet, before its `Start`.
    pub fn in_header(&self) -> bool {
        self.inside() && self.at != Section::Body
    }

    /// Inside a packet, header included: an end of the stream here truncates it.
    pub fn inside(&self) -> bool {
        self.at != Section::Header || self.have > 0
    }
}

/// A length-encoded integer at the front of `bytes`: its value and its length.
pub fn lenenc(bytes: &[u8]) -> Option<(u64, usize)> {
    let wide = |n: usize| {
        let field = bytes.get(1..=n)?;
        let mut wide = [0; 8];
        wide[..n].copy_from_slice(field);
        Some((u64::from_le_bytes(wide), n + 1))
    };
    match *bytes.first()? {
        short @ 0..=0xfa => Some((u64::from(short), 1)),
        0xfc => wide(2),
        0xfd => wide(3),
        0xfe => wide(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (length, sequence id, prefix) of every packet, and whether the stream ended inside one.
    fn packets(framer: &mut Framer, pieces: &[&[u8]]) -> (Vec<(u32, u8, Vec<u8>)>, bool) {
        let mut seen = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(event) = framer.next(&mut piece) {
                if event == Event::Start {
                    let packet = framer.packet();
                    seen.push((packet.len, packet.seq, packet.prefix.to_vec()));
                }
            }
            assert!(piece.is_empty());
        }
        (seen, framer.inside())
    }

    #[test]
    fn empty_packets_start_and_end() {
        let mut framer = Framer::new(1);
        let mut input: &[u8] = &[0, 0, 0, 7, 1, 0, 0, 8, 9];
        assert_eq!(framer.next(&mut input), Some(Event::Start));
        assert_eq!(framer.packet(), Packet { len: 0, seq: 7, prefix: &[] });
        assert_eq!(framer.next(&mut input), Some(Event::End));
        assert_eq!(framer.next(&mut input), Some(Event::Start));
        assert_eq!(framer.packet(), Packet { len: 1, seq: 8, prefix: &[9] });
        assert_eq!(framer.next(&mut input), Some(Event::End));
        assert_eq!(framer.next(&mut input), None);
        assert!(!framer.inside());
    }

    #[test]
    fn length_encoded_integers() {
        assert_eq!(lenenc(&[0xfa]), Some((250, 1)));
        assert_eq!(lenenc(&[0xfc, 1, 2]), Some((513, 3)));
        assert_eq!(lenenc(&[0xfd, 1, 0, 1]), Some((65537, 4)));
        assert_eq!(lenenc(&[0xfe, 1, 0, 0, 0, 0, 0, 0, 1]), Some((1 + (1 << 56), 9)));
        for bad in [&[][..], &[0xfb], &[0xff], &[0xfc, 1], &[0xfe, 1, 2, 3]] {
            assert_eq!(lenenc(bad), None);
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8),
            cuts in prop::collection::vec(1..40_usize, 1..20),
            tail in 0..5_usize,
            wanted in 0..=PREFIX as u8,
        ) {
            let mut stream = Vec::new();
            for (n, payload) in payloads.iter().enumerate() {
                stream.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
                stream.push(n as u8);
                stream.extend_from_slice(payload);
            }
            stream.truncate(stream.len().saturating_sub(tail));
            let whole = packets(&mut Framer::new(wanted), &[&stream]);
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(packets(&mut Framer::new(wanted), &pieces), whole.clone());
            if tail == 0 {
                let expected: Vec<_> = payloads.iter().enumerate().map(|(n, payload)| {
                    (payload.len() as u32, n as u8, payload[..payload.len().min(usize::from(wanted))].to_vec())
                }).collect();
                prop_assert_eq!(whole, (expected, false));
            }
        }
    }
}
