//! Truncation of texts.

/// The longest prefix of whole characters with at most this number of bytes.
pub fn truncated(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
