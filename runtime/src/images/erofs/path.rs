//! What an entry's path means: its components, and whether it is a whiteout.

use super::Problem;

const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// The components of a path below the layer's root; none for the root itself.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    if path.contains(&0) {
        return Err(Problem::NulByte);
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b".")).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Problem::DotDot);
    }
    if parts.iter().any(|c| c.len() > MAX_NAME) {
        return Err(Problem::NameTooLong);
    }
    Ok(parts)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    Ordinary,
    /// Hides this name of the layers below.
    Whiteout(&'a [u8]),
    /// Hides everything that the layers below have in the directory.
    Opaque,
    /// AUFS' own bookkeeping, which is no content.
    Ignored,
}

/// What the last of the components says about the layers below.
pub(super) fn mark<'a>(components: &[&'a [u8]]) -> Result<Mark<'a>, Problem> {
    let Some((last, parents)) = components.split_last() else { return Ok(Mark::Ordinary) };
    if *last == b".wh..wh..opq" {
        return Ok(Mark::Opaque);
    }
    if last.starts_with(b".wh..wh.") || parents.iter().any(|c| c.starts_with(b".wh..wh.")) {
        return Ok(Mark::Ignored);
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Mark::Ordinary),
        Some(b"" | b"." | b"..") => Err(Problem::EmptyWhiteout),
        Some(name) => Ok(Mark::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_means_nothing() {
        let expected: Vec<&[u8]> = vec![b"a", b"b"];
        assert_eq!(components(b"/./a//b/").unwrap(), expected);
        assert!(components(b"./").unwrap().is_empty());
        assert_eq!(components(b"a/../b"), Err(Problem::DotDot));
        assert_eq!(components(b".."), Err(Problem::DotDot));
        assert_eq!(components(b"a\0b"), Err(Problem::NulByte));
        assert_eq!(components(&[b'x'; 256]), Err(Problem::NameTooLong));
        assert_eq!(components(&b"x/".repeat(2049)), Err(Problem::PathTooLong));
    }

    #[test]
    fn whiteouts_are_told_apart() {
        assert_eq!(mark(&[b"a", b".wh.b"]), Ok(Mark::Whiteout(b"b")));
        assert_eq!(mark(&[b"a", b".wh..wh..opq"]), Ok(Mark::Opaque));
        assert_eq!(mark(&[b".wh..wh.plnk", b"1.2"]), Ok(Mark::Ignored));
        assert_eq!(mark(&[b".wh..wh.aufs"]), Ok(Mark::Ignored));
        assert_eq!(mark(&[b".wh."]), Err(Problem::EmptyWhiteout));
        assert_eq!(mark(&[b".wh..."]), Err(Problem::EmptyWhiteout));
        assert_eq!(mark(&[b"wh.x"]), Ok(Mark::Ordinary));
    }
}
