//! What a stream is compressed with is told by its first bytes: media types and file names are often wrong.

use std::io::{self, Cursor, Read};

/// Gives the stream's content, decompressed where it is compressed with gzip or zstd.
pub(super) fn decompress<'a, R: Read + 'a>(mut stream: R) -> io::Result<(bool, Box<dyn Read + 'a>)> {
    let mut head = Vec::with_capacity(8);
    stream.by_ref().take(8).read_to_end(&mut head)?;
    let known = match head.as_slice() {
        [0x1f, 0x8b, ..] => Some(true),
        // A frame, or one to be skipped that precedes it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(false),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unsupported("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => return Err(unsupported("bzip2")),
        _ => None,
    };
    let whole = Cursor::new(head).chain(stream);
    Ok(match known {
        Some(true) => {
            (true, Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, whole))))
        }
        Some(false) => (true, Box::new(zstd::stream::read::Decoder::new(whole)?)),
        None => (false, Box::new(whole)),
    })
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("compression with {what} is not supported; decompress it first"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn content(bytes: &[u8]) -> io::Result<(bool, Vec<u8>)> {
        let (compressed, mut reader) = decompress(bytes)?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((compressed, out))
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"hello").unwrap();
        let gz = gz.finish().unwrap();
        // Several members, as pigz and eStargz write them.
        assert_eq!(content(&[gz.clone(), gz].concat()).unwrap(), (true, b"hellohello".to_vec()));
        let zst = zstd::encode_all(&b"hello"[..], 1).unwrap();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zst].concat();
        assert_eq!(content(&zst).unwrap(), (true, b"hello".to_vec()));
        assert_eq!(content(&skipped).unwrap(), (true, b"hello".to_vec()));
        assert_eq!(content(b"x").unwrap(), (false, b"x".to_vec()));
        assert_eq!(content(b"").unwrap(), (false, vec![]));
        assert_eq!(content(b"\xfd7zXZ\0\0\0").unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(content(&zst[..zst.len() - 2]).is_err());
    }
}
