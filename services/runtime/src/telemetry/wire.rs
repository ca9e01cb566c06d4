//! The few words of protobuf that spans and lines are written with. A message's fields may stand in any order, so each is written when it is
//! known.

use std::{fmt::Display, io::Write};

/// How a field's value is written, in the lower bits of its key.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    key(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes, text, or a message that is complete.
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    head(out, field, value.len());
    out.extend_from_slice(value);
}

/// What stands before the `length` bytes of a message that is written next.
pub fn head(out: &mut Vec<u8>, field: u32, length: usize) {
    key(out, field, LENGTH);
    varint(out, length as u64);
}

/// Text that has to be made.
pub fn shown(out: &mut Vec<u8>, field: u32, value: impl Display) {
    // Nearly all are short enough for a length of one byte, so the place of that is left free.
    head(out, field, 0);
    let start = out.len();
    // Writing to memory cannot fail.
    let _ = write!(out, "{value}");
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
    } else {
        let mut digits = Vec::new();
        varint(&mut digits, length as u64);
        out.splice(start - 1..start, digits);
    }
}

/// Of a field numbered 1..=15 whose value has so many bytes.
pub fn bytes_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

pub fn number_len(value: u64) -> usize {
    1 + varint_len(value)
}

fn key(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_written() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, 3, value);
            assert_eq!(out.len(), number_len(value), "{value}");
            assert_eq!(prost::encoding::decode_varint(&mut &out[1..]).unwrap(), value);
        }
        for length in [0, 127, 128, 20_000] {
            let (text, mut out, mut made) = ("x".repeat(length), Vec::new(), Vec::new());
            bytes(&mut out, 5, text.as_bytes());
            shown(&mut made, 5, &text);
            assert_eq!((out.len(), &made), (bytes_len(length), &out));
        }
    }
}
