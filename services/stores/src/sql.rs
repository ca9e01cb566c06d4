//! Text of SQL statements, and columns of their rows.

use contract::UserId;
use sqlx::{Row, mysql::MySqlRow};

/// Appends the bytes in hexadecimal, for a literal such as `x'612762'`. It needs no escaping.
pub(crate) fn push_hex(sql: &mut String, bytes: impl AsRef<[u8]>) {
    data_encoding::HEXLOWER.encode_append(bytes.as_ref(), sql);
}

pub(crate) fn push_integer(sql: &mut String, number: impl itoa::Integer) {
    sql.push_str(itoa::Buffer::new().format(number));
}

/// As a double, which the server rounds to the same float.
pub(crate) fn push_double(sql: &mut String, number: f32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(f64::from(number));
    sql.push_str(text);
    // Without an exponent the literal would be a DECIMAL.
    if !text.contains('e') {
        sql.push_str("e0");
    }
}

/// Deletes the features of users whose log gets events without Kafka: they lack these events. The next event from Kafka makes them again,
/// from the whole log.
pub(crate) fn forget_features<'a>(schema: &str, user_ids: impl Iterator<Item = &'a UserId>) -> String {
    format!("DELETE FROM {schema}.features WHERE user_id IN {}", hex_list(user_ids))
}

/// `(x'61',x'62')`
pub(crate) fn hex_list<'a>(user_ids: impl Iterator<Item = &'a UserId>) -> String {
    let mut list = String::new();
    for user_id in user_ids {
        list.push_str(if list.is_empty() { "(x'" } else { ",x'" });
        push_hex(&mut list, user_id.as_str());
        list.push('\'');
    }
    list.push(')');
    list
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
