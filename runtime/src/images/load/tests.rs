use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Mutex;

use super::super::fixture::{Layout, docker, gzip, tar, write_folder, zstd};
use super::super::progress::Event;
use super::super::progress::Silent;
use super::super::{Digest, Reference};
use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { _dir: dir, store }
    }

    fn stream(&self, bytes: Vec<u8>) -> Result<Vec<Image>, Error> {
        load(&self.store, Source::Stream(Box::new(Cursor::new(bytes))), Limits::default(), &Silent)
    }

    fn path(&self, path: &Path) -> Result<Vec<Image>, Error> {
        load(&self.store, Source::Path(path.to_path_buf()), Limits::default(), &Silent)
    }

    /// The error of a load that must leave nothing behind.
    fn refusal(&self, bytes: Vec<u8>) -> Error {
        let error = self.stream(bytes).unwrap_err();
        assert_eq!(self.leftovers(), Vec::<String>::new());
        error
    }

    fn leftovers(&self) -> Vec<String> {
        let dirs = ["tmp", "layers", "blobs/sha256"].map(|d| self.store.root().join(d));
        let entries = dirs.iter().flat_map(|d| fs::read_dir(d).unwrap());
        entries.map(|e| e.unwrap().path().display().to_string()).collect()
    }
}

fn layers() -> Vec<Vec<u8>> {
    vec![tar(&[("etc/passwd", b"root:x:0:0\n")]), tar(&[("bin/sh", &[7; 10_000])])]
}

fn layout(name: Option<&str>, compress: fn(&[u8]) -> Vec<u8>) -> Layout {
    let mut layout = Layout::new();
    let manifest = layout.manifest(&layers(), compress);
    layout.list(manifest, name, None);
    layout
}

#[test]
fn an_oci_layout_loads_in_every_packing() {
    let plain = |b: &[u8]| b.to_vec();
    for (compress, whole) in [(gzip as fn(&[u8]) -> _, plain as fn(&[u8]) -> _), (zstd, gzip), (plain, zstd)] {
        let fixture = Fixture::new();
        let images = fixture.stream(whole(&layout(Some("a/b:1"), compress).finish_tar())).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].references, [Reference::parse("a/b:1").unwrap()]);
        let ids: Vec<_> = images[0].layers.iter().map(|l| l.diff_id.clone()).collect();
        assert_eq!(ids, layers().iter().map(|l| Digest::of(l)).collect::<Vec<_>>());
        for layer in &images[0].layers {
            let meta = fs::metadata(&layer.path).unwrap();
            assert_eq!((meta.len(), meta.len() % 4096), (layer.length, 0));
        }
        assert_eq!(fs::read_dir(fixture.store.root().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn folders_and_files_load_too() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    write_folder(&layout(Some("x:1"), gzip).finish(), dir.path());
    let folder = fixture.path(dir.path()).unwrap();
    let file = dir.path().join("archive.tar");
    fs::write(&file, layout(Some("y:1"), gzip).finish_tar()).unwrap();
    let from_file = fixture.path(&file).unwrap();
    fs::write(&file, zstd(&layout(Some("z:1"), gzip).finish_tar())).unwrap();
    let from_zstd = fixture.path(&file).unwrap();
    assert_eq!(folder[0].id, from_file[0].id);
    let names: Vec<_> = from_zstd[0].references.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["x:1", "y:1", "z:1"]);
    assert!(matches!(fixture.path(Path::new("/nonexistent/x")), Err(Error::Io { doing: "open", .. })));
}

#[test]
fn a_folder_is_not_left_by_symlinks() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("layout");
    let files = layout(Some("x:1"), gzip).finish();
    write_folder(&files, &inside);
    let index = inside.join("index.json");
    fs::rename(&index, dir.path().join("outside.json")).unwrap();
    std::os::unix::fs::symlink("../outside.json", &index).unwrap();
    assert!(matches!(fixture.path(&inside), Err(Error::Io { .. })));
}

#[test]
fn docker_archives_load_with_all_their_images() {
    let fixture = Fixture::new();
    let images = fixture.stream(docker(&layers(), &["one:1", "two"], "a")).unwrap();
    let names: Vec<_> = images[0].references.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["one:1", "two:latest"]);
    assert_eq!(images[0].created.as_deref(), Some("2024-05-06T07:08:09.123456789Z"));
    assert_eq!(images[0].config.config().as_ref().unwrap().user().as_deref(), Some("1000"));

    let (a, b) = (layers(), vec![layers()[0].clone()]);
    let (config_a, config_b) = (super::super::fixture::config(&a, "a"), super::super::fixture::config(&b, "b"));
    let manifest = br#"[{"Config":"a.json","RepoTags":null,"Layers":["0","1"]},
        {"Config":"./b.json","RepoTags":["b:1"],"Layers":["0"]}]"#;
    let files: [(&str, &[u8]); 5] =
        [("0", &a[0]), ("1", &a[1]), ("a.json", &config_a), ("b.json", &config_b), ("manifest.json", manifest)];
    let images = fixture.stream(gzip(&tar(&files))).unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(fixture.store.list().unwrap().len(), 2);
}

#[test]
fn links_between_members_are_followed_within_the_archive() {
    let layer = layers()[0].clone();
    let config = super::super::fixture::config(&[layer.clone(), layer.clone()], "links");
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    for (target, good) in [("../a/layer.tar", true), ("/etc/passwd", false), ("layer.tar", false)] {
        let files: [(&str, &[u8]); 3] = [("a/layer.tar", &layer), ("c.json", &config), ("manifest.json", manifest)];
        let mut bytes = tar(&files);
        bytes.truncate(bytes.len() - 1024);
        let mut builder = tar::Builder::new(bytes);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "b/layer.tar", target).unwrap();
        let outcome = Fixture::new().stream(builder.into_inner().unwrap());
        match outcome {
            // The layer is there twice; the lower one would show nothing.
            Ok(images) => assert!(good && images[0].layers.len() == 1),
            Err(error) => assert!(!good && matches!(error, Error::Missing { .. }), "{error:?}"),
        }
    }
}

#[test]
fn of_several_platforms_this_one_is_taken() {
    let mut layout = Layout::new();
    let here = layout.manifest(&layers()[..1], gzip);
    let other = layout.manifest(&layers()[1..], gzip);
    let mut inner = Layout::new();
    inner.list(other.clone(), None, Some("arm64"));
    inner.list(here, None, Some("amd64"));
    let index = inner.index();
    let index = layout.blob(&index, "application/vnd.oci.image.index.v1+json");
    layout.list(index, Some("multi:1"), None);
    let images = Fixture::new().stream(layout.finish_tar()).unwrap();
    assert_eq!(images[0].layers[0].diff_id, Digest::of(&layers()[0]));

    let mut layout = Layout::new();
    let other = layout.manifest(&layers(), gzip);
    layout.list(other, Some("other:1"), Some("arm64"));
    let error = Fixture::new().refusal(layout.finish_tar());
    assert!(error.to_string().contains("linux/arm64"), "{error}");
}

#[test]
fn damage_is_named_and_nothing_stays() {
    let fixture = Fixture::new();
    let good = layout(None, gzip).finish();
    let as_tar =
        |files: &[(String, Vec<u8>)]| tar(&files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect::<Vec<_>>());
    for (index, (name, content)) in good.iter().enumerate().filter(|(_, (name, _))| name.starts_with("blobs/")) {
        let mut files = good.clone();
        files.remove(index);
        assert!(matches!(fixture.refusal(as_tar(&files)), Error::Missing { name: n } if n == *name));
        files.push((name.clone(), content[..content.len() - 1].to_vec()));
        let error = fixture.refusal(as_tar(&files));
        assert!(matches!(error, Error::WrongSize { .. } | Error::WrongDigest { .. }), "{error:?}");
        let mut changed = content.clone();
        *changed.last_mut().unwrap() ^= 1;
        *files.last_mut().unwrap() = (name.clone(), changed);
        assert!(matches!(fixture.refusal(as_tar(&files)), Error::WrongDigest { .. }));
    }
    let whole = as_tar(&good);
    for end in [whole.len() / 3, whole.len() / 2] {
        let error = fixture.refusal(whole[..end].to_vec());
        assert!(
            matches!(error, Error::Archive { .. } | Error::Missing { .. } | Error::UnknownArchive { .. }),
            "{error:?}"
        );
        let zipped = gzip(&whole);
        let error = fixture.refusal(zipped[..zipped.len() * end / whole.len()].to_vec());
        assert!(
            matches!(error, Error::Archive { source: super::super::tarball::TarError::Truncated, .. }),
            "{error:?}"
        );
    }
    assert!(matches!(fixture.refusal(b"hello".to_vec()), Error::Archive { .. }));
    assert!(matches!(fixture.refusal(tar(&[("x", b"y")])), Error::UnknownArchive { .. }));
    assert!(matches!(fixture.refusal(tar(&[("manifest.json", b"{")])), Error::Json { .. }));
    assert!(matches!(fixture.refusal(tar(&[("manifest.json", b"[]")])), Error::Nonsense { .. }));
}

#[test]
fn layers_are_held_to_their_diff_ids() {
    let fixture = Fixture::new();
    let mut archive = docker(&layers(), &["a:1"], "x");
    let at = archive.windows(4).position(|w| w == [7; 4]).unwrap();
    archive[at] = 8;
    assert!(matches!(fixture.refusal(archive), Error::WrongDigest { .. }));
    let bad = vec![tar(&[("../../etc/passwd", b"x")])];
    let error = fixture.refusal(docker(&bad, &["a:1"], "x"));
    assert!(matches!(error, Error::Layer { .. }), "{error:?}");
    assert!(
        crate::Error::from(error).chain().contains("\"../../etc/passwd\" cannot be used: its path contains \"..\"")
    );
}

#[test]
fn bombs_end_at_the_limit() {
    let fixture = Fixture::new();
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let bomb = vec![tar(&[("zeros", &vec![0; 8 << 20])])];
    let mut layout = Layout::new();
    let manifest = layout.manifest(&bomb, gzip);
    layout.list(manifest, None, None);
    let load = |bytes: Vec<u8>| load(&fixture.store, Source::Stream(Box::new(Cursor::new(bytes))), limits, &Silent);
    let error = load(layout.finish_tar()).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error:?}");
    let error = load(gzip(&docker(&bomb, &[], "x"))).unwrap_err();
    assert!(matches!(error, Error::ArchiveTooLarge { limit: 1_048_576 }), "{error:?}");
    assert_eq!(fixture.leftovers(), Vec::<String>::new());
}

#[test]
fn progress_is_told_per_layer() {
    struct Log(Mutex<Vec<String>>);
    impl Progress for Log {
        fn event(&self, event: Event<'_>) {
            let text = match event {
                Event::LayerExists { .. } => "exists".to_owned(),
                Event::LayerAdvanced { done, total, .. } if done == total => "all".to_owned(),
                Event::LayerAdvanced { done, .. } => done.to_string(),
                Event::LayerDone { .. } => "done".to_owned(),
                Event::Message(text) => text.to_owned(),
            };
            self.0.lock().unwrap().push(text);
        }
    }
    let fixture = Fixture::new();
    let log = Log(Mutex::default());
    for _ in 0..2 {
        let source = Source::Stream(Box::new(Cursor::new(docker(&layers()[1..], &["a"], "x"))));
        load(&fixture.store, source, Limits::default(), &log).unwrap();
    }
    assert_eq!(*log.0.lock().unwrap(), ["0", "all", "done", "exists"]);
}
