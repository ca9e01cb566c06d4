//! The two packets that negotiate capabilities. Pure.

use crate::packet::Malformed;

pub(crate) const CLIENT_MYSQL: u32 = 1;
const CLIENT_COMPRESS: u32 = 1 << 5;
const CLIENT_LOCAL_FILES: u32 = 1 << 7;
const CLIENT_PROTOCOL_41: u32 = 1 << 9;
const CLIENT_SSL: u32 = 1 << 11;
pub(crate) const CLIENT_DEPRECATE_EOF: u32 = 1 << 24;
const CLIENT_OPTIONAL_RESULTSET_METADATA: u32 = 1 << 25;
const CLIENT_ZSTD_COMPRESSION_ALGORITHM: u32 = 1 << 26;

/// Not offered to clients, because the proxy could not parse what follows the handshake. MariaDB's extended capabilities (progress reports,
/// cached metadata, …) are hidden too.
const HIDDEN: u32 = CLIENT_COMPRESS
    | CLIENT_LOCAL_FILES
    | CLIENT_SSL
    | CLIENT_OPTIONAL_RESULTSET_METADATA
    | CLIENT_ZSTD_COMPRESSION_ALGORITHM;
/// A client that uses one of these is refused. Some clients always set LOCAL_FILES: they are refused when they use it.
const REFUSED: u32 = HIDDEN & !CLIENT_LOCAL_FILES;

/// Clears unsupported capabilities in a greeting (payload of Protocol::HandshakeV10). Returns the remaining ones.
///
/// # Errors
/// `Greeting`: another protocol version, or too short.
pub(crate) fn rewrite_greeting(payload: &mut [u8]) -> Result<u32, Malformed> {
    if payload.first() != Some(&10) {
        return Err(Malformed::Greeting);
    }
    let name = payload.iter().position(|&byte| byte == 0).ok_or(Malformed::Greeting)?;
    // Thread id 4, scramble 8, filler 1; then capabilities 2, character set 1, status 2, capabilities 2, scramble length
    // 1, reserved 10, of which MariaDB uses the last 4.
    let low = name + 1 + 13;
    let fields = payload.get_mut(low..low + 18).ok_or(Malformed::Greeting)?;
    let offered = u32::from_le_bytes([fields[0], fields[1], fields[5], fields[6]]);
    let left = offered & !HIDDEN;
    if left & CLIENT_PROTOCOL_41 == 0 {
        return Err(Malformed::Greeting);
    }
    let [a, b, c, d] = left.to_le_bytes();
    (fields[0], fields[1], fields[5], fields[6]) = (a, b, c, d);
    if offered & CLIENT_MYSQL == 0 {
        fields[14..18].fill(0);
    }
    Ok(left)
}

/// Capabilities of the client in its first packet (payload of HandshakeResponse41 or SSLRequest).
///
/// # Errors
/// `Capability`: a hidden one; `Handshake`: too short, or a protocol older than 4.1.
pub(crate) fn client_capabilities(payload: &[u8]) -> Result<u32, Malformed> {
    let fixed = payload.get(..32).ok_or(Malformed::Handshake)?;
    let flags = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
    if flags & CLIENT_PROTOCOL_41 == 0 {
        return Err(Malformed::Handshake);
    }
    let extended = flags & CLIENT_MYSQL == 0 && fixed[28..32] != [0; 4];
    if flags & REFUSED != 0 || extended {
        return Err(Malformed::Capability);
    }
    Ok(flags)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn greeting(capabilities: u32, extended: u32) -> Vec<u8> {
        let caps = capabilities.to_le_bytes();
        let mut payload = b"\x0a10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0".to_vec();
        payload.extend_from_slice(&[caps[0], caps[1], 45, 2, 0, caps[2], caps[3], 21]);
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(&extended.to_le_bytes());
        payload.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        payload
    }

    #[test]
    fn greeting_loses_only_the_hidden_bits() {
        let mut payload = greeting(!CLIENT_MYSQL, 0x1f);
        let expected = greeting(!HIDDEN & !CLIENT_MYSQL, 0);
        assert_eq!(rewrite_greeting(&mut payload), Ok(!HIDDEN & !CLIENT_MYSQL));
        assert_eq!(payload, expected);
        // MySQL's reserved bytes are not capabilities.
        let mut payload = greeting(u32::MAX, 0x1f);
        rewrite_greeting(&mut payload).unwrap();
        assert_eq!(payload, greeting(!HIDDEN, 0x1f));
    }

    #[test]
    fn clients_are_held_to_the_greeting() {
        let response = |flags: u32, extended: u32| {
            let mut payload = [0; 40];
            payload[..4].copy_from_slice(&flags.to_le_bytes());
            payload[28..32].copy_from_slice(&extended.to_le_bytes());
            client_capabilities(&payload)
        };
        let plain = CLIENT_PROTOCOL_41 | CLIENT_DEPRECATE_EOF;
        assert_eq!(response(plain, 0), Ok(plain));
        assert_eq!(response(plain | CLIENT_LOCAL_FILES, 0), Ok(plain | CLIENT_LOCAL_FILES));
        assert_eq!(response(plain | CLIENT_MYSQL, 9), Ok(plain | CLIENT_MYSQL));
        for hidden in [CLIENT_SSL, CLIENT_COMPRESS, CLIENT_OPTIONAL_RESULTSET_METADATA] {
            assert_eq!(response(plain | hidden, 0), Err(Malformed::Capability));
        }
        assert_eq!(response(plain, 1), Err(Malformed::Capability));
        assert_eq!(response(CLIENT_DEPRECATE_EOF, 0), Err(Malformed::Handshake));
        assert_eq!(client_capabilities(&[0xff; 31]), Err(Malformed::Handshake));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut payload in prop::collection::vec(any::<u8>(), 0..120)) {
            client_capabilities(&payload).ok();
            rewrite_greeting(&mut payload).ok();
            payload.insert(0, 10);
            rewrite_greeting(&mut payload).ok();
        }
    }
}
