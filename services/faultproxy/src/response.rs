//! Finds the end of a response. Pure. Follows the text and binary protocol of MySQL 8 and MariaDB 10.11 as documented, with the
//! capabilities of `handshake`.
//!
//! States: Status, Text → done. Fields → … → done. Head → done | Head | Definitions → DefinitionsEnd → Rows → done | Head. StatementHead →
//! Definitions → … → done. Authentication → Authentication | done. ERR ends each of them.

use crate::{
    command::ResponseKind,
    packet::{Event, Framer, MAX_PAYLOAD, Malformed, PREFIX, Packet, lenenc},
};

const SERVER_MORE_RESULTS_EXISTS: u16 = 0x0008;
const SERVER_STATUS_CURSOR_EXISTS: u16 = 0x0040;
/// A table has at most 4096 columns; a larger number is invalid.
const MAX_COLUMNS: u64 = 0xffff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParseState {
    Status,
    Text,
    Fields,
    Head,
    Definitions {
        left: u16,
        then: AfterDefinitions,
    },
    /// The EOF after definitions that clients without DEPRECATE_EOF get.
    DefinitionsEnd {
        then: AfterDefinitions,
    },
    /// `results`: a status may announce another result set.
    Rows {
        results: bool,
    },
    StatementHead,
    Authentication,
}

/// What follows definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterDefinitions {
    Rows,
    StatementColumns(u16),
    Nothing,
}

/// Progress after a piece of the server's byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that belong to the response; fewer than given only if it is done.
    pub taken: usize,
    pub done: bool,
}

/// Parses one response.
#[derive(Debug, Clone)]
pub struct Response {
    framer: Framer,
    at: ParseState,
    next_seq: u8,
    deprecate_eof: bool,
    begun: bool,
    /// The current packet continues the previous one.
    continued: bool,
    /// The current packet is the last one.
    last: bool,
    statement: Option<u32>,
}

impl Response {
    /// `first_seq`: sequence id of the first packet; `deprecate_eof`: both sides have CLIENT_DEPRECATE_EOF. `ResponseKind::Nothing` and
    /// `ResponseKind::Close` have no response.
    pub fn new(answer: ResponseKind, first_seq: u8, deprecate_eof: bool) -> Self {
        let at = match answer {
            ResponseKind::Nothing | ResponseKind::Close | ResponseKind::Status => ParseState::Status,
            ResponseKind::Text => ParseState::Text,
            ResponseKind::Fields => ParseState::Fields,
            ResponseKind::Results => ParseState::Head,
            ResponseKind::Statement => ParseState::StatementHead,
            ResponseKind::Rows => ParseState::Rows { results: false },
            ResponseKind::Authentication => ParseState::Authentication,
        };
        let framer = Framer::new(PREFIX as u8);
        Self {
            framer,
            at,
            next_seq: first_seq,
            deprecate_eof,
            begun: false,
            continued: false,
            last: false,
            statement: None,
        }
    }

    /// Parses a piece of the stream.
    ///
    /// # Errors
    /// `Sequence`, `Empty`, `Response` or `LocalInfile`; do not call it again.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, Malformed> {
        self.begun |= !bytes.is_empty();
        let mut rest = bytes;
        while let Some(event) = self.framer.next(&mut rest) {
            match event {
                Event::Start => self.start()?,
                Event::End => {
                    self.continued = self.framer.packet().len == MAX_PAYLOAD;
                    if self.last && !self.continued {
                        return Ok(Progress { taken: bytes.len() - rest.len(), done: true });
                    }
                }
            }
        }
        Ok(Progress { taken: bytes.len(), done: false })
    }

    /// Id of the statement that the server has prepared.
    pub fn statement(&self) -> Option<u32> {
        self.statement
    }

    /// Whether a byte of it has arrived.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Inside a packet: an end of the stream here truncates it.
    pub fn inside(&self) -> bool {
        self.framer.inside() || self.continued
    }

    /// Records a packet of the client within COM_CHANGE_USER.
    ///
    /// # Errors
    /// `Sequence`: not the next id.
    pub fn client_packet(&mut self, seq: u8) -> Result<(), Malformed> {
        if seq != self.next_seq {
            return Err(Malformed::Sequence);
        }
        self.next_seq = seq.wrapping_add(1);
        Ok(())
    }

    fn start(&mut self) -> Result<(), Malformed> {
        let packet = self.framer.packet();
        if !self.continued && packet.prefix.first() == Some(&0xff) {
            if packet.len < 3 {
                return Err(Malformed::Response);
            }
            // With any sequence id: a server that refused an oversized command has lost count.
            self.last = true;
            return Ok(());
        }
        if packet.seq != self.next_seq {
            return Err(Malformed::Sequence);
        }
        self.next_seq = packet.seq.wrapping_add(1);
        if self.continued {
            return Ok(());
        }
        let after = self.at.after(packet, self.deprecate_eof)?;
        if self.at == ParseState::StatementHead {
            self.statement = packet.prefix.get(1..5).and_then(|id| id.try_into().ok()).map(u32::from_le_bytes);
        }
        match after {
            Some(at) => self.at = at,
            None => self.last = true,
        }
        Ok(())
    }
}

impl ParseState {
    /// State after a packet that is not ERR; `None`: the response ends with it.
    fn after(self, packet: Packet<'_>, deprecate_eof: bool) -> Result<Option<Self>, Malformed> {
        let &first = packet.prefix.first().ok_or(Malformed::Empty)?;
        let end = || end_status(packet, deprecate_eof);
        match self {
            Self::Status if first == 0 => ok_status(packet.prefix).map(|_| None),
            Self::Status => end()?.ok_or(Malformed::Response).map(|_| None),
            Self::Text => Ok(None),
            Self::Fields => Ok(if end()?.is_some() { None } else { Some(self) }),
            Self::Head => Self::after_head(packet, first, deprecate_eof),
            Self::Definitions { .. } if end()?.is_some() => Err(Malformed::Response),
            Self::Definitions { left: 1, then } if deprecate_eof => Ok(then.state()),
            Self::Definitions { left: 1, then } => Ok(Some(Self::DefinitionsEnd { then })),
            Self::Definitions { left, then } => Ok(Some(Self::Definitions { left: left - 1, then })),
            Self::DefinitionsEnd { then } => {
                let status = end()?.ok_or(Malformed::Response)?;
                // The rows stay on the server until they are fetched.
                let cursor = then == AfterDefinitions::Rows && status & SERVER_STATUS_CURSOR_EXISTS != 0;
                Ok(if cursor { None } else { then.state() })
            }
            Self::Rows { results } => match end()? {
                None => Ok(Some(self)),
                Some(status) if results && status & SERVER_MORE_RESULTS_EXISTS != 0 => Ok(Some(Self::Head)),
                Some(_) => Ok(None),
            },
            Self::StatementHead => {
                let head = packet.prefix.get(..12).filter(|head| head[0] == 0).ok_or(Malformed::Response)?;
                let columns = u16::from_le_bytes([head[5], head[6]]);
                let parameters = u16::from_le_bytes([head[7], head[8]]);
                Ok(match parameters {
                    0 => AfterDefinitions::StatementColumns(columns).state(),
                    left => Some(Self::Definitions { left, then: AfterDefinitions::StatementColumns(columns) }),
                })
            }
            Self::Authentication => Ok(if first == 0 { None } else { Some(self) }),
        }
    }

    fn after_head(packet: Packet<'_>, first: u8, deprecate_eof: bool) -> Result<Option<Self>, Malformed> {
        let status = match first {
            0 => ok_status(packet.prefix)?,
            0xfb => return Err(Malformed::LocalInfile),
            0xfe => end_status(packet, deprecate_eof)?.ok_or(Malformed::Response)?,
            _ => {
                let (columns, bytes) = lenenc(packet.prefix).ok_or(Malformed::Response)?;
                if bytes != packet.len as usize || columns > MAX_COLUMNS {
                    return Err(Malformed::Response);
                }
                return Ok(Some(Self::Definitions { left: columns as u16, then: AfterDefinitions::Rows }));
            }
        };
        Ok((status & SERVER_MORE_RESULTS_EXISTS != 0).then_some(Self::Head))
    }
}

impl AfterDefinitions {
    fn state(self) -> Option<ParseState> {
        match self {
            Self::Rows => Some(ParseState::Rows { results: true }),
            Self::StatementColumns(0) | Self::Nothing => None,
            Self::StatementColumns(left) => Some(ParseState::Definitions { left, then: Self::Nothing }),
        }
    }
}

/// Status flags of an OK packet with either header.
fn ok_status(prefix: &[u8]) -> Result<u16, Malformed> {
    let flags = || {
        let (_, affected) = lenenc(prefix.get(1..)?)?;
        let (_, last_id) = lenenc(prefix.get(1 + affected..)?)?;
        let at = 1 + affected + last_id;
        Some(u16::from_le_bytes([*prefix.get(at)?, *prefix.get(at + 1)?]))
    };
    flags().ok_or(Malformed::Response)
}

/// Status flags of the packet that ends rows or definitions, `None` if this is not such a packet.
fn end_status(packet: Packet<'_>, deprecate_eof: bool) -> Result<Option<u16>, Malformed> {
    // A row that begins with 0xfe has a value of 16 MB or more, so its packet is full (without DEPRECATE_EOF: at least 9 bytes).
    let limit = if deprecate_eof { MAX_PAYLOAD } else { 9 };
    if packet.prefix.first() != Some(&0xfe) || packet.len >= limit {
        return Ok(None);
    }
    match *packet.prefix {
        [_, _, _, low, high] => Ok(Some(u16::from_le_bytes([low, high]))),
        _ if deprecate_eof => ok_status(packet.prefix).map(Some),
        _ => Err(Malformed::Response),
    }
}

#[cfg(test)]
mod tests;
