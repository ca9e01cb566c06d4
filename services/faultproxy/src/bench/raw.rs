//! A minimal MySQL client: logs in without a password, sends packets, reads packets.

use anyhow::{Context, bail, ensure};
use runtime::{Endpoint, net::Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// LONG_PASSWORD, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_STATEMENTS, MULTI_RESULTS, PS_MULTI_RESULTS,
/// PLUGIN_AUTH, DEPRECATE_EOF.
pub(super) const CAPABILITIES: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 24;
const PING: &[u8] = &[1, 0, 0, 0, 0x0e];

#[derive(Debug)]
pub struct RawClient {
    pub stream: Stream,
    /// Payload of the server's greeting.
    pub greeting: Vec<u8>,
}

impl RawClient {
    /// # Errors
    /// The server cannot be reached, or refuses `user` without a password.
    pub async fn login(address: &Endpoint, user: &str, capabilities: u32) -> anyhow::Result<Self> {
        let stream = address.connect().await.with_context(|| format!("cannot connect to {address}"))?;
        let mut client = Self { stream, greeting: Vec::new() };
        (_, client.greeting) = client.packet().await.context("no greeting")?;
        let mut response = capabilities.to_le_bytes().to_vec();
        response.extend_from_slice(&[0, 0, 0, 1, 45]);
        response.extend_from_slice(&[0; 23]);
        response.extend_from_slice(user.as_bytes());
        response.extend_from_slice(b"\0\0mysql_native_password\0");
        client.send(1, &response).await?;
        // Auth switch to another plugin, then OK: a few packets.
        for _ in 0..8 {
            let (seq, payload) = client.packet().await.context("no answer to the login")?;
            match payload.first() {
                Some(0) => return Ok(client),
                Some(0xfe) => client.send(seq.wrapping_add(1), &[]).await?,
                Some(1 | 2) => {}
                _ => bail!("login refused: {}", String::from_utf8_lossy(&payload)),
            }
        }
        bail!("login does not end after 8 packets")
    }

    /// # Errors
    /// The connection broke, or the answer is not OK.
    pub async fn ping(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(PING).await?;
        let mut answer = [0; 64];
        let mut have = 0;
        loop {
            let read = self.stream.read(&mut answer[have..]).await?;
            ensure!(read > 0, "connection closed");
            have += read;
            let length = 4 + usize::from(answer[0]);
            if have >= 4 && have >= length {
                ensure!(
                    have == length && answer[1..5] == [0, 0, 1, 0],
                    "answer to a ping is not OK: {:?}",
                    &answer[..have]
                );
                return Ok(());
            }
        }
    }

    /// Sends one packet; payloads of 2^24 − 1 bytes and more are not supported.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, seq: u8, payload: &[u8]) -> anyhow::Result<()> {
        let length = u32::try_from(payload.len()).context("packet too long")?.to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], seq];
        packet.extend_from_slice(payload);
        Ok(self.stream.write_all(&packet).await?)
    }

    /// Sequence id and payload of the next packet.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn packet(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok((header[3], payload))
    }
}
