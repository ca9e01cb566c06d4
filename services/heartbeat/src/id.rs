//! The rule for names of nodes, senders and services: 1 to 64 bytes of UTF-8 without control characters. The testbed's ids
//! follow the same rule; it is repeated here because the library depends on no crate of the testbed.

/// Maximum length of a name in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Why a name is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("must not be empty")]
    Empty,
    #[error("is {0} bytes long, the limit is {MAX_ID_BYTES}")]
    TooLong(usize),
    #[error("must not contain control characters")]
    ControlCharacter,
}

/// # Errors
/// Which of the three rules the name breaks.
pub fn check(name: &str) -> Result<(), IdError> {
    match name.len() {
        0 => Err(IdError::Empty),
        n if n > MAX_ID_BYTES => Err(IdError::TooLong(n)),
        _ if name.chars().any(char::is_control) => Err(IdError::ControlCharacter),
        _ => Ok(()),
    }
}
