//! Text of SQL statements, and columns of their rows.

use sqlx::{Row, mysql::MySqlRow};

/// Appends the bytes in hexadecimal, for a literal such as `x'612762'`. It needs no escaping.
pub(crate) fn push_hex(sql: &mut String, bytes: impl AsRef<[u8]>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes.as_ref() {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

pub(crate) fn id_at<T: std::str::FromStr<Err = contract::IdError>>(
    row: &MySqlRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    let bytes: &[u8] = row.try_get_unchecked(column)?;
    let text = std::str::from_utf8(bytes).map_err(|error| decode_error(error.to_string()))?;
    text.parse().map_err(|error: contract::IdError| decode_error(error.to_string()))
}

pub(crate) fn decode_error(reason: String) -> sqlx::Error {
    sqlx::Error::Decode(reason.into())
}
