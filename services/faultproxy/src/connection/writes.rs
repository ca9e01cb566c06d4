//! Faults of writes: which commands write, and the error that answers a write in place of the server.

use std::collections::HashSet;

use tokio::io::AsyncWriteExt;

use super::{CommandDelay, ConnectionEnd, Session, client};
use crate::{
    command::is_write,
    direction::Direction,
    fault::{WriteError, unstalled},
    loss::LossSampler,
    packet::Malformed,
};

/// MySQL's default of `max_prepared_stmt_count`, for all connections of a server.
const MAX_STATEMENTS: usize = 16_382;

pub(super) struct Writes {
    /// Ids of the prepared statements that write.
    statements: HashSet<u32>,
    /// The command in progress prepares such a statement.
    is_preparing: bool,
    sampler: LossSampler,
}

impl Writes {
    /// `number` of the connection.
    pub(super) fn new(number: u64) -> Self {
        let sampler = LossSampler::new(number, Direction::ToServer);
        Self { statements: HashSet::new(), is_preparing: false, sampler }
    }

    /// Whether the command with this beginning writes.
    pub(super) fn begins(&mut self, prefix: &[u8]) -> bool {
        let Some((&code, rest)) = prefix.split_first() else { return false };
        let statement = rest.first_chunk().map(|id| u32::from_le_bytes(*id));
        self.is_preparing = code == 0x16 && is_write(rest);
        match (code, statement) {
            (0x03, _) => is_write(rest),
            (0x17 | 0xfa, Some(id)) => self.statements.contains(&id),
            (0x19, Some(id)) => {
                self.statements.remove(&id);
                false
            }
            // Change user, reset connection: the server forgets the statements.
            (0x11 | 0x1f, _) => {
                self.statements.clear();
                false
            }
            _ => false,
        }
    }

    /// The server has prepared the statement of the command in progress.
    pub(super) fn prepared(&mut self, id: u32) {
        if self.is_preparing && self.statements.len() < MAX_STATEMENTS {
            self.statements.insert(id);
        }
    }
}

impl Session<'_> {
    /// The error for the write that has arrived, if the fault selects it.
    pub(super) fn write_error(&mut self) -> Option<WriteError> {
        let failures = self.conditions.borrow().fail_writes?;
        self.writes.sampler.lost(Some(failures.share)).then_some(failures.error)
    }

    /// Reads the rest of the command, which the server does not get, and answers it with the error.
    pub(super) async fn refuse_write(
        &mut self,
        error: WriteError,
        delay_plan: CommandDelay,
    ) -> Result<(), ConnectionEnd> {
        // Commands without a response precede it.
        self.send_scanned().await.map_err(ConnectionEnd::Lost)?;
        loop {
            let is_complete = self.scan_command().map_err(client)?;
            let discarded = self.client.pending().len();
            self.client.sent(discarded);
            if is_complete {
                break;
            }
            match self.client.fill(self.client_stream).await {
                Ok(0) => return Err(client(Malformed::Truncated)),
                Ok(_) => {}
                Err(_) => return Err(ConnectionEnd::Closed),
            }
        }
        let packet = err_packet(error, self.commands.end_of_command());
        let added = delay_plan.late + self.hold_answer(&delay_plan).await;
        self.metrics.added_delay.observe(added.as_secs_f64());
        self.counts.failed_writes.inc();
        unstalled(&self.conditions, Direction::ToClient).await;
        if !self.loses(Direction::ToClient) {
            self.client_stream.write_all(&packet).await.map_err(|_| ConnectionEnd::Closed)?;
        }
        Ok(())
    }
}

fn err_packet(error: WriteError, seq: u8) -> Vec<u8> {
    let (number, state, message) = error.packet();
    let payload = [&[0xff], &number.to_le_bytes()[..], b"#", state, message.as_bytes()].concat();
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    [&[a, b, c, seq], &payload[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_writes_are_known_until_they_are_closed() {
        let mut writes = Writes::new(1);
        let execute = [0x17, 7, 0, 0, 0, 0, 1];
        assert!(!writes.begins(b"\x16UPDATE t SET x = ?") && !writes.begins(&execute), "not prepared yet");
        assert!(!writes.begins(b"\x16UPDATE t SET x = ?"));
        writes.prepared(7);
        assert!(writes.begins(&execute) && !writes.begins(&[0x17, 8, 0, 0, 0]));
        assert!(!writes.begins(b"\x16SELECT 1"));
        writes.prepared(8);
        assert!(!writes.begins(&[0x17, 8, 0, 0, 0]) && !writes.begins(&[0x19, 7, 0, 0, 0]) && !writes.begins(&execute));
        assert!(writes.begins(b"\x03COMMIT") && !writes.begins(b"\x03BEGIN") && !writes.begins(b"\x0e"));
        writes.begins(b"\x16DELETE FROM t");
        writes.prepared(9);
        assert!(!writes.begins(b"\x1f") && !writes.begins(&[0x17, 9, 0, 0, 0]), "the connection was reset");
    }
}
