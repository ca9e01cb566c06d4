use super::{Codec, CodecId, DecodeError, EncodeError, within_limit};
use crate::message::{Batch, Beat};

#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Codec for Json {
    fn id(&self) -> CodecId {
        CodecId::Json
    }

    fn encode(&mut self, beat: &Beat, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Ok(serde_json::to_writer(out, beat)?)
    }

    fn encode_batch(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        Ok(serde_json::to_writer(out, batch)?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Beat, DecodeError> {
        within_limit(bytes)?;
        let beat: Beat = serde_json::from_slice(bytes)?;
        beat.check()?;
        Ok(beat)
    }

    fn decode_batch(&mut self, bytes: &[u8]) -> Result<Batch, DecodeError> {
        within_limit(bytes)?;
        let batch: Batch = serde_json::from_slice(bytes)?;
        batch.check()?;
        Ok(batch)
    }
}
