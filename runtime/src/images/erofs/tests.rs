//! That the images mount and read back right is checked in `tests/erofs_oracle.rs`; here are the rules that need no kernel.

use std::io::Read;

use super::*;

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn raw(mut self, path: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str) -> Self {
        self.raw(path, b'0', "", b"content")
    }

    fn directory(self, path: &str) -> Self {
        self.raw(path, b'5', "", b"")
    }

    fn convert(self, limits: Limits) -> Result<Vec<u8>, LayerError> {
        let bytes = self.0.into_inner().unwrap();
        convert_bytes(bytes.as_slice(), limits)
    }

    fn problem(self) -> Problem {
        match self.convert(Limits::default()) {
            Err(LayerError::Entry { problem, .. }) => problem,
            other => panic!("{:?}", other.map(|b| b.len())),
        }
    }
}

fn convert_bytes(stream: impl Read, limits: Limits) -> Result<Vec<u8>, LayerError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let summary = convert(stream, file.reopen().unwrap(), file.path(), limits)?;
    let image = std::fs::read(file.path()).unwrap();
    assert_eq!(image.len() as u64, summary.length);
    Ok(image)
}

/// How often a byte string occurs.
fn count(image: &[u8], needle: &[u8]) -> usize {
    image.windows(needle.len()).filter(|w| *w == needle).count()
}

#[test]
fn equal_layers_give_equal_images() {
    let make = || Layer::new().directory("a/").file("a/b").file("c").convert(Limits::default()).unwrap();
    let image = make();
    assert_eq!(image.len() % 4096, 0);
    assert_eq!(image, make());
}

#[test]
fn an_empty_layer_is_an_empty_root() {
    assert_eq!(convert_bytes(&[0; 1024][..], Limits::default()).unwrap().len(), 8192);
    assert_eq!(convert_bytes(&[][..], Limits::default()).unwrap().len(), 8192);
}

#[test]
fn bad_paths_are_refused() {
    assert_eq!(Layer::new().file("../x").problem(), Problem::DotDot);
    assert_eq!(Layer::new().file("a/../../x").problem(), Problem::DotDot);
    assert_eq!(Layer::new().file("a").file("a/b").problem(), Problem::ParentNotDirectory);
    assert_eq!(Layer::new().raw("l", b'2', "/etc", b"").file("l/passwd").problem(), Problem::ParentNotDirectory);
    assert_eq!(Layer::new().file(".").problem(), Problem::RootNotDirectory);
    assert_eq!(Layer::new().raw("l", b'2', "", b"").problem(), Problem::LinkTarget);
    assert_eq!(Layer::new().file(".wh.").problem(), Problem::EmptyWhiteout);
}

#[test]
fn hard_links_stay_within_the_layer() {
    assert_eq!(Layer::new().raw("a", b'1', "/etc/shadow", b"").problem(), Problem::LinkTargetMissing);
    assert_eq!(Layer::new().raw("a", b'1', "../x", b"").problem(), Problem::DotDot);
    assert_eq!(Layer::new().directory("d/").raw("a", b'1', "d", b"").problem(), Problem::LinkToDirectory);
    assert_eq!(Layer::new().file(".wh.x").raw("a", b'1', "x", b"").problem(), Problem::LinkTargetMissing);
}

#[test]
fn absolute_paths_are_below_the_root() {
    let image = Layer::new().file("/./etc//passwd").convert(Limits::default()).unwrap();
    assert_eq!(image, Layer::new().file("etc/passwd").convert(Limits::default()).unwrap());
}

#[test]
fn whiteouts_yield_to_what_the_layer_has() {
    let limits = Limits::default();
    let plain = Layer::new().file("f").convert(limits).unwrap();
    assert_eq!(Layer::new().file("f").file(".wh.f").convert(limits).unwrap(), plain);
    // A directory in place of one that was removed must not show the old one's entries.
    for layer in [
        Layer::new().file(".wh.d").directory("d/").file("d/x"),
        Layer::new().directory("d/").file("d/x").file(".wh.d"),
        Layer::new().directory("d/").file("d/.wh..wh..opq").file("d/x"),
        Layer::new().file("d/.wh..wh..opq").directory("d/").file("d/x"),
        // Whiteouts below have nothing left to hide, and readdir of such a directory would show them.
        Layer::new().file("d/.wh..wh..opq").file("d/x").file("d/.wh.gone"),
    ] {
        let image = layer.convert(limits).unwrap();
        assert_eq!(count(&image, b"overlay.opaquey"), 1);
        assert_eq!(count(&image, b"gone"), 0);
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { entries: 3, ..Limits::default() };
    assert!(Layer::new().file("a").file("b").convert(limits).is_ok());
    assert!(matches!(Layer::new().file("a/b/c").convert(limits), Err(LayerError::Limit { what: "entries", limit: 3 })));
    let limits = Limits { metadata: 300, ..Limits::default() };
    assert!(matches!(
        Layer::new().file("a").file("b").convert(limits),
        Err(LayerError::Limit { what: "bytes of metadata", .. })
    ));
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    for (start, length) in [(0usize, 2u64 << 20), (1024, u64::MAX)] {
        let bomb = std::io::repeat(0).take(length);
        let archive = Layer::new().raw("x", b'0', "", &vec![0; 2 << 20]).0.into_inner().unwrap();
        let head = if start == 0 { archive.as_slice() } else { &[0; 1024] };
        let outcome = convert_bytes(head.chain(bomb), limits);
        assert!(matches!(outcome, Err(LayerError::Limit { what: "bytes of content", .. })));
    }
}

#[test]
fn a_truncated_layer_is_refused() {
    let bytes = Layer::new().raw("x", b'0', "", &[1; 9000]).0.into_inner().unwrap();
    let outcome = convert_bytes(&bytes[..5000], Limits::default());
    assert!(matches!(outcome, Err(LayerError::Archive { source: TarError::Truncated })));
}

#[test]
fn a_full_disk_is_named() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let outcome = convert(&[0; 1024][..], full, "/some/where".as_ref(), Limits::default());
    let Err(error @ LayerError::NoSpace { .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().starts_with("No space is left for the converted layer /some/where"), "{error}");
}
