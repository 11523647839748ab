//! Frames from the other side, in pieces and whole: every message type decodes or is refused, and both readers agree.

#![no_main]

use dewar_protocol::{Call, FrameDecoder, GuestMessage, Hello, HelloAck, encode, read_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (cut, bytes) = data.split_first().map_or((1, data), |(first, rest)| (usize::from(*first).max(1), rest));
    let mut decoder = FrameDecoder::default();
    let mut in_pieces = Vec::new();
    'pieces: for piece in bytes.chunks(cut) {
        decoder.push(piece);
        loop {
            match decoder.next_frame::<GuestMessage>() {
                Ok(Some(message)) => in_pieces.push(encode(&message).expect("what was decoded encodes")),
                Ok(None) => break,
                Err(_) => break 'pieces,
            }
        }
    }
    let mut stream = bytes;
    let mut whole = Vec::new();
    while let Ok(Some(message)) = read_frame::<GuestMessage>(&mut stream) {
        whole.push(encode(&message).expect("what was decoded encodes"));
    }
    assert_eq!(in_pieces, whole);

    if let Ok(Some(call)) = read_frame::<Call>(&mut &bytes[..]) {
        encode(&call).expect("what was decoded encodes");
    }
    if let Ok(Some(hello)) = read_frame::<Hello>(&mut &bytes[..]) {
        let again = encode(&hello).expect("what was decoded encodes");
        assert_eq!(read_frame::<Hello>(&mut &again[..]).expect("decodes"), Some(hello));
    }
    if let Ok(Some(ack)) = read_frame::<HelloAck>(&mut &bytes[..]) {
        let again = encode(&ack).expect("what was decoded encodes");
        assert_eq!(read_frame::<HelloAck>(&mut &again[..]).expect("decodes"), Some(ack));
    }
});
