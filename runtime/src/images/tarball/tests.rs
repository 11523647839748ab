use super::*;

fn header(name: &str, kind: u8, content: &[u8]) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_mtime(7);
    header.set_cksum();
    header
}

fn archive(members: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, content) in members {
        out.extend_from_slice(header(name, *kind, content).as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A PAX record, whose length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let length = (1..).find(|n: &usize| n.to_string().len() + rest.len() == *n).unwrap();
    format!("{length}{rest}").into_bytes()
}

fn content(reader: &mut Reader<&[u8]>) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let length = reader.read(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

#[test]
fn entries_come_in_order_and_unread_data_is_skipped() {
    let bytes = archive(&[("a", b'0', b"first"), ("d/", 0, b""), ("b", b'0', &[7; 600]), ("c", b'7', b"third")]);
    let mut reader = Reader::new(bytes.as_slice());
    let a = reader.next_entry().unwrap().unwrap();
    assert_eq!((a.path.as_slice(), a.size, a.mode, a.uid), (&b"a"[..], 5, 0o644, 1000));
    assert_eq!(content(&mut reader), b"first");
    assert_eq!(reader.next_entry().unwrap().unwrap().kind, EntryKind::Directory);
    assert_eq!(reader.next_entry().unwrap().unwrap().size, 600);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"c");
    assert_eq!(content(&mut reader), b"third");
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn extensions_apply_to_the_next_entry_only() {
    let long = "x/".repeat(200) + "end\0";
    let bytes = archive(&[
        ("././@LongLink", b'L', long.as_bytes()),
        ("PaxHeader", b'x', &[record("uid", "5000"), record("mtime", "1.000000001")].concat()),
        ("short", b'0', b"hello"),
        ("plain", b'0', b""),
    ]);
    let mut reader = Reader::new(bytes.as_slice());
    let first = reader.next_entry().unwrap().unwrap();
    assert_eq!(first.path, long.trim_end_matches('\0').as_bytes());
    assert_eq!((first.uid, first.mtime), (5000, Timestamp { seconds: 1, nanoseconds: 1 }));
    let second = reader.next_entry().unwrap().unwrap();
    assert_eq!((second.path.as_slice(), second.uid, second.mtime.seconds), (&b"plain"[..], 1000, 7));
}

#[test]
fn sparse_maps_of_format_1_0_come_before_the_data() {
    let mut data = b"2\n0\n4\n8192\n3\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"headend");
    let pax = [("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", "10000")]
        .map(|(key, value)| record(&format!("GNU.sparse.{key}"), value))
        .concat();
    let bytes = archive(&[("p", b'x', &pax), ("GNUSparseFile.0/real", b'0', &data)]);
    let mut reader = Reader::new(bytes.as_slice());
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!((entry.path.as_slice(), entry.size, entry.stored), (&b"real"[..], 10000, 7));
    let expected = vec![Extent { offset: 0, length: 4 }, Extent { offset: 8192, length: 3 }];
    assert_eq!(entry.extents, Some(expected));
    assert_eq!(content(&mut reader), b"headend");
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn lies_about_holes_are_refused() {
    for (map, size) in [("0,9,4,9", "100"), ("0,19", "18"), ("0", "18"), ("0,17", "18")] {
        let pax = [record("GNU.sparse.map", map), record("GNU.sparse.size", size)].concat();
        let bytes = archive(&[("p", b'x', &pax), ("f", b'0', &[1; 18])]);
        let outcome = Reader::new(bytes.as_slice()).next_entry();
        assert!(matches!(outcome, Err(TarError::Malformed { .. })), "{outcome:?}");
    }
}

#[test]
fn damage_is_told_apart() {
    let good = archive(&[("a", b'0', &[1; 2000])]);
    let mut reader = Reader::new(&good[..1000]);
    reader.next_entry().unwrap().unwrap();
    assert!(matches!(reader.next_entry(), Err(TarError::Truncated)));
    let mut bad = good.clone();
    bad[3] ^= 1;
    assert!(matches!(Reader::new(bad.as_slice()).next_entry(), Err(TarError::Checksum { position: 0 })));
    let huge = header("x", b'x', &[]);
    let mut huge = huge.clone();
    huge.set_size(1 << 40);
    huge.set_cksum();
    assert!(matches!(Reader::new(&huge.as_bytes()[..]).next_entry(), Err(TarError::TooLong { .. })));
    let odd = archive(&[("a", b'D', b"")]);
    assert!(matches!(Reader::new(odd.as_slice()).next_entry(), Err(TarError::UnsupportedKind { kind: 'D' })));
}
