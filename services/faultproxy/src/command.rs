//! Parses the client's byte stream after the authentication phase. Pure.

use crate::packet::{Event, Framer, MAX_PAYLOAD, Malformed, PREFIX};

/// Grammar of a command's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// No response: the next command may follow immediately.
    Nothing,
    /// The server closes the connection (COM_QUIT).
    Close,
    /// One OK, EOF or ERR.
    Status,
    /// One packet of text, or ERR (COM_STATISTICS).
    Text,
    /// Column definitions, EOF (COM_FIELD_LIST).
    Fields,
    /// OK or result sets; the status says whether more follow (COM_QUERY, COM_STMT_EXECUTE).
    Results,
    /// Statement, parameter and column definitions (COM_STMT_PREPARE).
    Statement,
    /// Rows, EOF (COM_STMT_FETCH).
    Rows,
    /// An exchange with the client until OK or ERR (COM_CHANGE_USER).
    Authentication,
}

/// # Errors
/// `UnsupportedCommand`: no sequence of commands and responses follows.
pub fn response_kind(command: u8) -> Result<ResponseKind, Malformed> {
    match command {
        0x01 => Ok(ResponseKind::Close),
        0x03 | 0x0a | 0x17 | 0xfa => Ok(ResponseKind::Results),
        0x04 => Ok(ResponseKind::Fields),
        0x09 => Ok(ResponseKind::Text),
        0x11 => Ok(ResponseKind::Authentication),
        0x16 => Ok(ResponseKind::Statement),
        0x18 | 0x19 => Ok(ResponseKind::Nothing),
        0x1c => Ok(ResponseKind::Rows),
        // BINLOG_DUMP, TABLE_DUMP, CONNECT_OUT, BINLOG_DUMP_GTID, CLONE, SUBSCRIBE_GROUP_REPLICATION_STREAM, COM_MULTI.
        0x12..=0x14 | 0x1e | 0x20 | 0x21 | 0xfe => Err(Malformed::UnsupportedCommand),
        // INIT_DB, PING, STMT_RESET, RESET_CONNECTION, SET_OPTION, …; a server answers ERR to unknown commands.
        _ => Ok(ResponseKind::Status),
    }
}

/// Whether a statement with this beginning writes, or commits what was written.
pub fn is_write(mut sql: &[u8]) -> bool {
    sql = sql.trim_ascii_start();
    while let Some(comment) = sql.strip_prefix(b"/*") {
        let Some(end) = comment.windows(2).position(|two| two == b"*/") else { return false };
        sql = comment[end + 2..].trim_ascii_start();
    }
    let word = sql.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    [&b"INSERT"[..], b"UPDATE", b"DELETE", b"REPLACE", b"COMMIT"].iter().any(|verb| word.eq_ignore_ascii_case(verb))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All input was consumed; more is needed.
    More,
    /// The first bytes of a command arrived: see `Commands::prefix`. The input is consumed up to the last of them.
    Arrived(ResponseKind),
    /// The last byte of the command was consumed.
    Ended,
}

/// Finds the commands in the client's byte stream.
#[derive(Debug, Clone)]
pub struct Commands {
    framer: Framer,
    next_seq: u8,
    continued: bool,
}

impl Default for Commands {
    fn default() -> Self {
        Self { framer: Framer::new(PREFIX as u8), next_seq: 0, continued: false }
    }
}

impl Commands {
    /// Consumes input up to the next step.
    ///
    /// # Errors
    /// `Sequence`, `Empty` or `UnsupportedCommand`; do not call it again.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Step, Malformed> {
        while let Some(event) = self.framer.next(input) {
            let packet = self.framer.packet();
            match event {
                Event::Start => {
                    if packet.seq != self.next_seq {
                        return Err(Malformed::Sequence);
                    }
                    self.next_seq = packet.seq.wrapping_add(1);
                    if !self.continued {
                        let &code = packet.prefix.first().ok_or(Malformed::Empty)?;
                        return Ok(Step::Arrived(response_kind(code)?));
                    }
                }
                Event::End => {
                    self.continued = packet.len == MAX_PAYLOAD;
                    if !self.continued {
                        return Ok(Step::Ended);
                    }
                }
            }
        }
        Ok(Step::More)
    }

    /// After `Arrived`, until the next call of `next`: the command's code and up to 23 bytes after it.
    pub fn prefix(&self) -> &[u8] {
        self.framer.packet().prefix
    }

    /// Sequence id of the response's first packet, after `Ended`. The next command starts at 0 again.
    pub fn end_of_command(&mut self) -> u8 {
        std::mem::take(&mut self.next_seq)
    }

    /// The first bytes of the current command have not arrived yet.
    pub fn in_header(&self) -> bool {
        self.framer.in_header()
    }

    /// Inside a packet or between the parts of one.
    pub fn inside(&self) -> bool {
        self.framer.inside() || self.continued
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Steps other than `More`, with the offset after each.
    fn steps(stream: &[u8], piece: usize) -> (Vec<(Step, usize)>, Option<Malformed>) {
        let (mut commands, mut seen, mut offset) = (Commands::default(), Vec::new(), 0);
        for mut input in stream.chunks(piece) {
            loop {
                let before = input.len();
                match commands.next(&mut input) {
                    Ok(step) => {
                        offset += before - input.len();
                        match step {
                            Step::More => break,
                            Step::Ended => {
                                commands.end_of_command();
                            }
                            Step::Arrived(_) => {}
                        }
                        seen.push((step, offset));
                    }
                    Err(malformed) => return (seen, Some(malformed)),
                }
            }
        }
        (seen, None)
    }

    #[test]
    fn pipelined_commands_are_told_apart() {
        let stream = [&[5, 0, 0, 0, 0x19, 1, 0, 0, 0][..], &[1, 0, 0, 0, 0x0e], &[2, 0, 0, 0, 3, b'x']].concat();
        let expected = vec![
            (Step::Arrived(ResponseKind::Nothing), 9),
            (Step::Ended, 9),
            (Step::Arrived(ResponseKind::Status), 14),
            (Step::Ended, 14),
            (Step::Arrived(ResponseKind::Results), 20),
            (Step::Ended, 20),
        ];
        for piece in 1..=stream.len() {
            assert_eq!(steps(&stream, piece), (expected.clone(), None));
        }
    }

    #[test]
    fn a_command_of_16_mb_goes_on_in_the_next_packet() {
        let mut stream = vec![0xff, 0xff, 0xff, 0, 3];
        stream.resize(4 + MAX_PAYLOAD as usize, b' ');
        let mut commands = Commands::default();
        let mut input = &stream[..];
        assert_eq!(commands.next(&mut input), Ok(Step::Arrived(ResponseKind::Results)));
        assert_eq!(commands.next(&mut input), Ok(Step::More));
        assert!(commands.inside());
        // A packet of exactly that length is followed by an empty one.
        assert_eq!(commands.next(&mut &[0, 0, 0, 1][..]), Ok(Step::Ended));
        assert_eq!(commands.end_of_command(), 2);
        assert!(!commands.inside());
        assert_eq!(commands.next(&mut &[1, 0, 0, 1, 14][..]), Err(Malformed::Sequence));
    }

    #[test]
    fn writes_are_known_by_their_first_word() {
        for sql in ["UPDATE t SET x = 1", "  insert into t", "/* a */ REPLACE", "commit", "Delete from t", "COMMIT;"] {
            assert!(is_write(sql.as_bytes()), "{sql}");
        }
        for sql in ["SELECT 1", "UPDATES", "", "BEGIN", "/* UPDATE", "ROLLBACK", "SHOW", "insertion"] {
            assert!(!is_write(sql.as_bytes()), "{sql}");
        }
        let mut commands = Commands::default();
        let mut input = &[[7, 0, 0, 0, 3].as_slice(), b"UPDATE"].concat()[..];
        assert_eq!(commands.next(&mut input), Ok(Step::Arrived(ResponseKind::Results)));
        assert_eq!(commands.prefix(), b"\x03UPDATE");
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(steps(&[0, 0, 0, 0], 4).1, Some(Malformed::Empty));
        assert_eq!(steps(&[1, 0, 0, 1, 14], 4).1, Some(Malformed::Sequence));
        assert_eq!(steps(&[1, 0, 0, 0, 0x12], 4).1, Some(Malformed::UnsupportedCommand));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_pieces_do_not_matter(
            stream in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>(), 0..32_u8], 0..200), piece in 1..50_usize,
        ) {
            prop_assert_eq!(steps(&stream, piece), steps(&stream, stream.len().max(1)));
        }
    }
}
