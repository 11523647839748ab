//! Lengths of source files: above the soft limit a file is named, above the hard one the check fails.
//!
//! Counted are production lines: unit tests at the end of a file (`#[cfg(test)]` on a module) are not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const SOFT: usize = 500;
const HARD: usize = 800;

/// Looks at every Rust file below `root`.
pub fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut too_long = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("Failed to read {}", path.display()))?;
        let lines = production_lines(&text);
        if lines > SOFT {
            let line = format!("{}: {lines} lines", path.strip_prefix(root).unwrap_or(&path).display());
            if lines > HARD { too_long.push(line) } else { eprintln!("above {SOFT}: {line}") }
        }
    }
    if !too_long.is_empty() {
        bail!("Files are longer than {HARD} lines:\n  {}", too_long.join("\n  "));
    }
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("Failed to list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("Failed to list {}", dir.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().with_context(|| format!("Failed to look at {}", path.display()))?;
        if kind.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
            collect(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn production_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'))
        .unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_tests_are_not_counted() {
        assert_eq!(production_lines("a\nb\n#[cfg(test)]\nmod tests {\n    x\n}\n"), 2);
        assert_eq!(production_lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
        assert_eq!(production_lines("a"), 1);
        assert_eq!(production_lines(""), 0);
    }

    #[test]
    fn a_long_file_fails_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("short.rs"), "x\n".repeat(HARD)).unwrap();
        check(dir.path()).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/long.rs"), "x\n".repeat(HARD + 1)).unwrap();
        assert!(check(dir.path()).unwrap_err().to_string().contains("sub/long.rs: 801 lines"));
    }
}
