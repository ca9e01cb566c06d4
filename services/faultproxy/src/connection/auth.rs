//! Authentication phase: greeting, handshake response, packets in both directions until OK or ERR. Sequence ids count through both
//! directions.

use super::{ConnectionEnd, Session, client, server};
use crate::{
    handshake::{CLIENT_DEPRECATE_EOF, client_capabilities, rewrite_greeting},
    packet::Malformed,
};

/// caching_sha2_password needs 5 after the handshake response, three factors a few more.
const MAX_PACKETS: u32 = 64;

impl Session<'_> {
    /// Ok: the client is logged in, and the format of responses is known.
    pub(super) async fn authenticate(&mut self) -> Result<(), ConnectionEnd> {
        let offered = self.greet().await?;
        let mut chosen = None;
        let mut next_seq = 1;
        for _ in 0..MAX_PACKETS {
            let from_client = self.next_packet().await?;
            if let Some(seq) = from_client {
                if seq != next_seq {
                    return Err(client(Malformed::Sequence));
                }
                if chosen.is_none() {
                    chosen = Some(client_capabilities(self.client.payload()).map_err(client)?);
                }
                next_seq = seq.wrapping_add(1);
                self.send_scanned().await.map_err(ConnectionEnd::Lost)?;
                continue;
            }
            let Some(packet) = self.server.complete_packet().map_err(server)? else { continue };
            let &first = self.server.payload().first().ok_or(server(Malformed::Empty))?;
            if first != 0xff && packet.seq != next_seq {
                return Err(server(Malformed::Sequence));
            }
            next_seq = packet.seq.wrapping_add(1);
            self.send_to_client(packet.bytes).await?;
            match (first, chosen) {
                (0xff, _) => return Err(ConnectionEnd::Closed),
                (0, None) => return Err(server(Malformed::Unsolicited)),
                (0, Some(_)) if !self.server.is_empty() => return Err(server(Malformed::Unsolicited)),
                (0, Some(chosen)) => {
                    self.deprecate_eof = offered & chosen & CLIENT_DEPRECATE_EOF != 0;
                    return Ok(());
                }
                // Auth switch, more data, next factor, or a plugin's own bytes.
                _ => {}
            }
        }
        Err(server(Malformed::Handshake))
    }

    /// Relays the greeting without unsupported capabilities. Returns the remaining ones.
    async fn greet(&mut self) -> Result<u32, ConnectionEnd> {
        let packet = loop {
            if let Some(packet) = self.server.complete_packet().map_err(server)? {
                break packet;
            }
            tokio::select! {
                biased;
                read = self.client.fill(self.client_stream) => match read {
                    // A port check without a login.
                    Ok(0) | Err(_) => return Err(ConnectionEnd::Closed),
                    Ok(_) => return Err(client(Malformed::BeforeGreeting)),
                },
                read = self.server.fill(self.server_stream) => match read {
                    Ok(0) if self.server.is_empty() => return Err(ConnectionEnd::Lost(std::io::ErrorKind::UnexpectedEof.into())),
                    Ok(0) => return Err(server(Malformed::Truncated)),
                    Ok(_) => {}
                    Err(error) => return Err(ConnectionEnd::Lost(error)),
                },
            }
        };
        if packet.seq != 0 {
            return Err(server(Malformed::Sequence));
        }
        let refusal = self.server.payload().first() == Some(&0xff);
        let offered = if refusal { 0 } else { rewrite_greeting(self.server.payload()).map_err(server)? };
        self.send_to_client(packet.bytes).await?;
        // For example "Too many connections".
        if refusal { Err(ConnectionEnd::Closed) } else { Ok(offered) }
    }

    /// Waits for a complete packet of either side: `Some(sequence id)` = client, `None` = server.
    async fn next_packet(&mut self) -> Result<Option<u8>, ConnectionEnd> {
        loop {
            if self.server.complete_packet().map_err(server)?.is_some() {
                return Ok(None);
            }
            if let Some(packet) = self.client.complete_packet().map_err(client)? {
                return Ok(Some(packet.seq));
            }
            tokio::select! {
                biased;
                read = self.server.fill(self.server_stream) => match read {
                    Ok(0) if self.server.is_empty() => return Err(ConnectionEnd::Closed),
                    Ok(0) => return Err(server(Malformed::Truncated)),
                    Ok(_) => {}
                    Err(_) => return Err(ConnectionEnd::Closed),
                },
                read = self.client.fill(self.client_stream) => match read {
                    Ok(0) if self.client.is_empty() => return Err(ConnectionEnd::Closed),
                    Ok(0) => return Err(client(Malformed::Truncated)),
                    Ok(_) => {}
                    Err(_) => return Err(ConnectionEnd::Closed),
                },
            }
        }
    }
}
