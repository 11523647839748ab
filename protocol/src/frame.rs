//! Length-prefixed `postcard` frames, for blocking and for non-blocking callers.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::MAX_FRAME;

/// What can be wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("A frame of {length} bytes exceeds the limit of {MAX_FRAME}")]
    TooLong { length: usize },
    #[error("A frame does not decode")]
    Decode(#[source] postcard::Error),
    #[error("A message does not encode")]
    Encode(#[source] postcard::Error),
    #[error("The connection failed")]
    Io(#[from] io::Error),
}

/// Encodes a message with its length prefix.
///
/// # Errors
/// [`FrameError::Encode`] and [`FrameError::TooLong`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(FrameError::Encode)?;
    let length = bytes.len().saturating_sub(4);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLong { length })?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// Writes one frame to a blocking stream.
///
/// # Errors
/// As [`encode`], and [`FrameError::Io`].
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(())
}

/// Reads one frame from a blocking stream; `None` at end of file between frames.
///
/// # Errors
/// [`FrameError::Io`] (end of file inside a frame included), [`FrameError::TooLong`], [`FrameError::Decode`].
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; 4];
    let first = loop {
        match stream.read(&mut prefix) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[first..])?;
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong { length });
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(FrameError::Decode)
}

/// Collects bytes as they arrive on a non-blocking stream and yields whole frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
}

impl FrameDecoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::Decode`]; the connection is of no use afterwards.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong { length });
        }
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = postcard::from_bytes(body).map_err(FrameError::Decode)?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let bytes: Vec<u8> = ["one", "", "three"].iter().flat_map(|s| encode(s).expect("encodes")).collect();
        for cut in 1..bytes.len() {
            let mut decoder = FrameDecoder::default();
            let mut seen: Vec<String> = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().expect("decodes") {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, ["one", "", "three"]);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let bytes = u32::MAX.to_le_bytes();
        let mut decoder = FrameDecoder::default();
        decoder.push(&bytes);
        assert!(matches!(decoder.next_frame::<String>(), Err(FrameError::TooLong { .. })));
        assert!(matches!(read_frame::<String>(&mut &bytes[..]), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn end_of_file_between_frames_is_none_and_inside_a_frame_an_error() {
        assert!(matches!(read_frame::<String>(&mut &[][..]), Ok(None)));
        assert!(matches!(read_frame::<String>(&mut &[1, 0][..]), Err(FrameError::Io(_))));
    }
}
