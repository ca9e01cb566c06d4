//! Reads fields from bytes that may be anything.

/// What is left to read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

/// The bytes end too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndsTooEarly;

impl<'a> Input<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EndsTooEarly> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(EndsTooEarly)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], EndsTooEarly> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(EndsTooEarly)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EndsTooEarly> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EndsTooEarly> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EndsTooEarly> {
        self.array().map(u64::from_le_bytes)
    }
}
