use std::io::Cursor;

use super::super::fixture::{docker, tar};
use super::super::progress::Silent;
use super::super::{Limits, Source, load};
use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("a/store")).unwrap();
        Self { _dir: dir, store }
    }

    /// Loads an image whose layers have these files.
    fn image(&self, tags: &[&str], files: &[&str]) -> Image {
        let layers: Vec<_> = files.iter().map(|f| tar(&[(f, f.as_bytes())])).collect();
        let archive = docker(&layers, tags, &files.join(" "));
        let source = Source::Stream(Box::new(Cursor::new(archive)));
        load(&self.store, source, Limits::default(), &Silent).unwrap().remove(0)
    }

    fn remove(&self, name: &str, force: bool, uses: &[Use]) -> Result<Vec<String>, Error> {
        let removed = self.store.remove(name, force, || Ok(uses.to_vec()))?;
        Ok(removed
            .iter()
            .map(|r| match r {
                Removed::Untagged(reference) => format!("untagged {reference}"),
                Removed::Deleted(id) => format!("deleted {}", id.short()),
            })
            .collect())
    }

    fn files(&self, dir: &str) -> usize {
        fs::read_dir(self.store.root().join(dir)).unwrap().count()
    }
}

fn used(image: &Image, running: bool) -> Vec<Use> {
    vec![Use { image: image.id.clone(), container: "c1".into(), running }]
}

#[test]
fn images_are_found_by_name_and_by_id() {
    let fixture = Fixture::new();
    let image = fixture.image(&["one"], &["a", "b"]);
    let id = image.id.hex();
    for name in [
        "one",
        "one:latest",
        "docker.io/library/one",
        id,
        &id[..5],
        &image.id.to_string(),
        &format!("sha256:{}", &id[..9]),
    ] {
        assert_eq!(fixture.store.resolve(name).unwrap().id, image.id, "{name}");
    }
    assert!(matches!(fixture.store.resolve("two"), Err(Error::NotFound { .. })));
    assert!(matches!(fixture.store.resolve("one:2"), Err(Error::NotFound { .. })));
    assert!(matches!(fixture.store.resolve("sha256:"), Err(Error::InvalidReference { .. })));
    assert!(matches!(fixture.store.resolve("A"), Err(Error::InvalidReference { .. })));
    assert!(matches!(fixture.store.resolve(&"0".repeat(64)), Err(Error::NotFound { .. })));
    // A name comes before the start of an id.
    let second = fixture.image(&[&id[..3]], &["c"]);
    assert_eq!(fixture.store.resolve(&id[..3]).unwrap().id, second.id);
}

#[test]
fn ambiguous_ids_are_refused() {
    let fixture = Fixture::new();
    let images: Vec<_> = (0..17).map(|i| fixture.image(&[], &[&format!("file-{i}")])).collect();
    // Seventeen ids cannot all begin differently.
    let first = |image: &Image| image.id.hex()[..1].to_owned();
    let twice = images.iter().find(|a| images.iter().filter(|b| first(a) == first(b)).count() > 1).unwrap();
    assert!(matches!(fixture.store.resolve(&first(twice)), Err(Error::Ambiguous { .. })));
}

#[test]
fn layers_are_shared_and_go_with_the_last_image() {
    let fixture = Fixture::new();
    let one = fixture.image(&["one"], &["a", "b"]);
    let two = fixture.image(&["two"], &["a", "c"]);
    assert_eq!(one.layers[0], two.layers[0]);
    assert_eq!((fixture.files("layers"), fixture.files("blobs/sha256")), (3, 2));
    let expected = vec!["untagged one:latest".to_owned(), format!("deleted {}", one.id.short())];
    assert_eq!(fixture.remove("one", false, &[]).unwrap(), expected);
    assert_eq!((fixture.files("layers"), fixture.files("blobs/sha256")), (2, 1));
    assert_eq!(fixture.store.list().unwrap().len(), 1);
    fixture.remove(two.id.short(), false, &[]).unwrap();
    assert_eq!((fixture.files("layers"), fixture.files("blobs/sha256"), fixture.files("tmp")), (0, 0, 0));
}

#[test]
fn tags_move_between_images() {
    let fixture = Fixture::new();
    let one = fixture.image(&["one"], &["a"]);
    fixture.store.tag("one", "other:1").unwrap();
    let names = |name: &str| {
        fixture.store.resolve(name).unwrap().references.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names("one"), ["one:latest", "other:1"]);
    let two = fixture.image(&["one"], &["b"]);
    assert_eq!(names("other:1"), ["other:1"]);
    assert_eq!(fixture.store.resolve("one").unwrap().id, two.id);
    fixture.store.tag("one", "other:1").unwrap();
    assert_eq!(names(one.id.hex()), Vec::<String>::new());
    assert!(fixture.store.tag("one", &format!("x@{}", one.id)).is_err());
    assert!(fixture.store.tag("nothing", "x").is_err());
    let listed: Vec<_> = fixture.store.list().unwrap().into_iter().map(|i| i.id).collect();
    assert_eq!(listed, [two.id, one.id]);
}

#[test]
fn removal_follows_docker_s_rules() {
    let fixture = Fixture::new();
    let image = fixture.image(&["one:1", "one:2"], &["a"]);
    // Not the last name: nobody loses anything.
    assert_eq!(fixture.remove("one:1", false, &used(&image, true)).unwrap(), ["untagged one:1"]);
    for running in [true, false] {
        let error = fixture.remove("one:2", false, &used(&image, running)).unwrap_err();
        assert!(matches!(error, Error::InUse { running: r, .. } if r == running), "{error:?}");
    }
    fixture.store.tag("one:2", "two").unwrap();
    let id = image.id.hex().to_owned();
    assert!(matches!(fixture.remove(&id, false, &[]), Err(Error::ManyReferences { .. })));
    assert_eq!(fixture.remove("two", false, &[]).unwrap(), ["untagged two:latest"]);
    // Force takes the name, but not the layers from under the container.
    assert_eq!(fixture.remove("one:2", true, &used(&image, true)).unwrap(), ["untagged one:2"]);
    assert!(matches!(fixture.remove(&id, true, &used(&image, false)), Err(Error::InUse { .. })));
    assert_eq!(fixture.files("layers"), 1);
    assert_eq!(fixture.remove(&id, false, &[]).unwrap(), [format!("deleted {}", image.id.short())]);
    assert!(matches!(fixture.remove(&id, false, &[]), Err(Error::NotFound { .. })));
}

#[test]
fn what_the_dead_leave_is_removed_and_the_living_are_left_alone() {
    let fixture = Fixture::new();
    let image = fixture.image(&["one"], &["a"]);
    let live = Session::begin(&fixture.store, Limits::default()).unwrap();
    let dead = fixture.store.tmp().join("dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("x.partial"), b"x").unwrap();
    fs::write(fixture.store.layers().join("orphan.erofs"), b"x").unwrap();
    Store::open(fixture.store.root()).unwrap();
    assert!(!dead.exists());
    assert!(live.path().exists());
    assert_eq!(fixture.files("layers"), 1);
    drop(live);
    assert_eq!(fixture.files("tmp"), 0);
    assert_eq!(fixture.store.resolve("one").unwrap().id, image.id);
}

#[test]
fn a_layer_that_is_removed_during_a_load_is_not_lost() {
    let fixture = Fixture::new();
    let image = fixture.image(&["one"], &["a"]);
    let diff_id = image.layers[0].diff_id.clone();
    let session = Session::begin(&fixture.store, Limits::default()).unwrap();
    assert!(session.has(&diff_id).unwrap());
    fixture.remove("one", false, &[]).unwrap();
    assert_eq!(fixture.files("layers"), 0);
    let config = super::super::fixture::config(&[tar(&[("a", b"a")])], "again");
    let new = NewImage { config, manifest: None, references: vec![] };
    let again = session.commit(vec![new]).unwrap();
    assert_eq!(again[0].layers[0].diff_id, diff_id);
    assert_eq!((fixture.files("layers"), fixture.files("tmp")), (1, 0));
}

#[test]
fn a_commit_that_fails_takes_back_what_it_had_put_there() {
    let fixture = Fixture::new();
    fixture.image(&["one"], &["a"]);
    let count = || ["layers", "blobs/sha256", "tmp"].map(|dir| fixture.files(dir));
    let before = count();
    // The new index cannot be written.
    let obstacle = fixture.store.root().join("images.json.new");
    fs::create_dir(&obstacle).unwrap();
    let session = Session::begin(&fixture.store, Limits::default()).unwrap();
    let layer = tar(&[("b", b"b")]);
    session.convert(&Digest::of(&layer), layer.as_slice()).unwrap();
    let config = super::super::fixture::config(&[layer], "new");
    let new = NewImage { config, manifest: Some(b"{}".to_vec()), references: vec![] };
    assert!(matches!(session.commit(vec![new]), Err(Error::Io { .. })));
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(count(), before);
    assert_eq!(fixture.store.list().unwrap().len(), 1);
}

#[test]
fn a_pin_keeps_removals_waiting() {
    let fixture = Fixture::new();
    let pin = fixture.store.pin().unwrap();
    let other = File::open(fixture.store.root().join("lock")).unwrap();
    assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
    flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    flock(&other, FlockOperation::Unlock).unwrap();
    drop(pin);
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn a_store_of_another_version_is_not_touched() {
    let fixture = Fixture::new();
    fs::write(fixture.store.root().join("images.json"), r#"{"version":2,"images":[]}"#).unwrap();
    assert!(matches!(fixture.store.list(), Err(Error::Unsupported { .. })));
    fs::write(fixture.store.root().join("images.json"), "{").unwrap();
    assert!(matches!(fixture.store.resolve("x"), Err(Error::Json { .. })));
}
