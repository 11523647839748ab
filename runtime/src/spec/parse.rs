//! Docker's notations for values of flags.

use super::{SpecError, signal};

pub use super::namespaces::{id_map, time_offset, user_namespace};

/// A tmpfs that the user wants mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute and not the root.
    pub path: String,
    /// Mount options, each checked.
    pub options: Vec<String>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name: `nofile`, `core`, …
    pub name: &'static str,
    /// -1: none.
    pub soft: i64,
    pub hard: i64,
}

/// Names that docker takes; the OCI name is `RLIMIT_` and this in capitals.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

const TMPFS_FLAGS: [&str; 21] = [
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "mand",
    "nomand",
];
const TMPFS_VALUES: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];

/// Bytes from `512m`, `1.5g`, `64MiB`, `1048576`: factors of 1024.
///
/// # Errors
/// [`SpecError::Size`].
pub fn size(text: &str) -> Result<u64, SpecError> {
    let fail = || SpecError::Size { text: text.to_owned() };
    let lower = text.to_ascii_lowercase();
    let number_end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let shift = match unit.chars().next() {
        None | Some('b') => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some('p') => 50,
        Some(_) => return Err(fail()),
    };
    let rest = if shift == 0 { unit } else { &unit[1..] };
    if !matches!(rest, "" | "b" | "ib") {
        return Err(fail());
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || number.ends_with('.') {
        return Err(fail());
    }
    let whole = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or_else(fail)?;
    let bytes = whole.checked_add(fraction_of(fraction, 1 << shift).ok_or_else(fail)?).ok_or_else(fail)?;
    if i64::try_from(bytes).is_ok() { Ok(bytes) } else { Err(fail()) }
}

/// `0.<digits>` of `unit`, rounded down; digits beyond the ninth do not matter.
fn fraction_of(digits: &str, unit: u64) -> Option<u64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = digits.get(..digits.len().min(9))?;
    let numerator: u128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    let denominator = 10u128.checked_pow(u32::try_from(kept.len()).ok()?)?;
    u64::try_from(numerator.checked_mul(u128::from(unit))?.checked_div(denominator)?).ok()
}

/// As [`size`], or `-1` for no limit.
///
/// # Errors
/// [`SpecError::Size`].
pub fn swap_size(text: &str) -> Result<i64, SpecError> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(size(text)?).map_err(|_| SpecError::Size { text: text.to_owned() })
}

/// Billionths of a CPU from `1.5`.
///
/// # Errors
/// [`SpecError::Cpus`] and [`SpecError::CpusPrecision`].
pub fn cpus(text: &str) -> Result<u64, SpecError> {
    let fail = || SpecError::Cpus { text: text.to_owned() };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(fail());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(SpecError::CpusPrecision);
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| fail())? };
    let billionths = format!("{fraction:0<9}").parse::<u64>().map_err(|_| fail())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(billionths)).ok_or_else(fail)
}

/// `nofile=1024`, `nofile=1024:2048`, `core=-1`.
///
/// # Errors
/// [`SpecError::Ulimit`], [`SpecError::UlimitType`] and [`SpecError::UlimitOrder`].
pub fn ulimit(text: &str) -> Result<Ulimit, SpecError> {
    let fail = || SpecError::Ulimit { text: text.to_owned() };
    let (name, values) = text.split_once('=').ok_or_else(fail)?;
    let known = ULIMITS.iter().find(|known| **known == name);
    let name = *known.ok_or_else(|| SpecError::UlimitType { name: name.to_owned() })?;
    let limit = |value: &str| value.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(fail);
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (limit(soft)?, limit(hard)?),
        None => (limit(values)?, limit(values)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(SpecError::UlimitOrder { soft, hard });
    }
    Ok(Ulimit { name, soft, hard })
}

/// `/run` or `/run:size=64m,mode=755`.
///
/// # Errors
/// [`SpecError::MountPath`], [`SpecError::MountRoot`] and [`SpecError::TmpfsOption`].
pub fn tmpfs(text: &str) -> Result<Tmpfs, SpecError> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(SpecError::MountPath { path: path.to_owned() });
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return Err(SpecError::MountRoot);
    }
    let options: Vec<String> = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    for option in &options {
        let known = match option.split_once('=') {
            Some((name, value)) => TMPFS_VALUES.contains(&name) && tmpfs_value(value),
            None => TMPFS_FLAGS.contains(&option.as_str()),
        };
        if !known {
            return Err(SpecError::TmpfsOption { option: option.clone() });
        }
    }
    Ok(Tmpfs { path: format!("/{}", parts.join("/")), options })
}

fn tmpfs_value(value: &str) -> bool {
    let digits = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && value.len() - digits.len() <= 1
}

/// The value of `-e`: a bare name takes its value from this process's environment, and stays bare when it has none.
///
/// # Errors
/// [`SpecError::Env`].
pub fn env(text: &str) -> Result<String, SpecError> {
    if text.is_empty() || text.starts_with('=') || text.contains('\0') {
        return Err(SpecError::Env { text: text.to_owned() });
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(std::env::var(text).map_or_else(|_| text.to_owned(), |value| format!("{text}={value}")))
}

/// The variables of an `--env-file`: `NAME=VALUE` taken literally, a bare `NAME` from `lookup` or left out, comments and
/// empty lines left out.
///
/// # Errors
/// [`SpecError::EnvFileName`], [`SpecError::EnvFileSpace`] and [`SpecError::EnvFileUtf8`].
pub fn env_file(content: &[u8], lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, SpecError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut variables = Vec::new();
    for (index, line) in content.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| SpecError::EnvFileUtf8 { line: index + 1 })?;
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() {
            return Err(SpecError::EnvFileName { line: text.to_owned() });
        }
        if name.contains(char::is_whitespace) {
            return Err(SpecError::EnvFileSpace { name: name.to_owned() });
        }
        if text.contains('\0') {
            return Err(SpecError::Nul { what: "a variable" });
        }
        if value.is_some() {
            variables.push(text.to_owned());
        } else if let Some(value) = lookup(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    Ok(variables)
}

/// `KEY=VALUE`; without `=` the value is empty.
#[must_use]
pub fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A name for a container: two characters at least, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
///
/// # Errors
/// [`SpecError::Name`].
pub fn container_name(name: &str) -> Result<(), SpecError> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = plain.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = plain.len() >= 2 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && plain.len() <= 200 && plain != "names" {
        return Ok(());
    }
    Err(SpecError::Name { name: name.to_owned() })
}

/// A list of CPUs such as `0-3,7`: answers how many CPUs a machine needs to have all of them.
///
/// # Errors
/// [`SpecError::Cpuset`].
pub fn cpuset(text: &str) -> Result<u64, SpecError> {
    let fail = || SpecError::Cpuset { text: text.to_owned() };
    let number = |s: &str| {
        let digits = s.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| s.parse::<u16>().ok()).flatten().ok_or_else(fail)
    };
    let mut most = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(fail());
        }
        most = most.max(u64::from(last) + 1);
    }
    Ok(most)
}

/// A signal by name or number.
///
/// # Errors
/// [`SpecError::Signal`].
pub fn signal(text: &str) -> Result<i32, SpecError> {
    signal::parse(text).ok_or_else(|| SpecError::Signal { name: text.to_owned() })
}

/// `SIGKILL` for 9.
#[must_use]
pub fn signal_name(number: i32) -> String {
    signal::name(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("10b", 10),
            ("10 k", 10240),
            ("64kb", 65536),
            ("512m", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.5K", 512),
            ("2T", 2 << 40),
            ("0", 0),
        ] {
            assert_eq!(size(text).ok(), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1mm", "1.m", ".5m", "1 0m", "1.2.3m", "99999p", "18446744073709551615", "1é"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(swap_size("-1").ok(), Some(-1));
        assert!(swap_size("-2").is_err());
    }

    #[test]
    fn shares_of_cpus() {
        for (text, nano) in [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("2.", 2_000_000_000)] {
            assert_eq!(cpus(text).ok(), Some(nano), "{text}");
        }
        for text in ["", ".", "-1", "1e3", "one", "1.2.3", "0.0000000001", "99999999999999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        for (text, most) in [("0", 1), ("0-3", 4), ("0,2-3,5", 6), ("7,1", 8)] {
            assert_eq!(cpuset(text).ok(), Some(most), "{text}");
        }
        for text in ["", "3-0", "a", "1,", "+1", "0--1"] {
            assert!(cpuset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_resources() {
        assert_eq!(ulimit("nofile=1024:2048").ok(), Some(Ulimit { name: "nofile", soft: 1024, hard: 2048 }));
        assert_eq!(ulimit("core=-1").ok(), Some(Ulimit { name: "core", soft: -1, hard: -1 }));
        for text in ["nofile", "nofile=", "nofile=1:2:3", "bogus=1", "nofile=5:2", "nofile=-1:2", "nofile=-2"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn temporary_filesystems() {
        let run = tmpfs("/run//x/:size=64m,mode=1777,exec").expect("parses");
        assert_eq!(
            run,
            Tmpfs { path: "/run/x".into(), options: vec!["size=64m".into(), "mode=1777".into(), "exec".into()] }
        );
        assert_eq!(tmpfs("/tmp").expect("parses").options, Vec::<String>::new());
        for text in ["run", "/", "//", "/a/../b", "/run:bogus", "/run:size=", "/run:size=1mm", "/run:lowerdir=/etc"] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_of_variables() {
        let file = b"\xef\xbb\xbfA=1\r\n  B=two words \n# no\n\nHERE\nGONE\nC=\nD=a=b";
        let lookup = |name: &str| (name == "HERE").then(|| "yes".to_owned());
        assert_eq!(env_file(file, lookup).expect("parses"), ["A=1", "B=two words ", "HERE=yes", "C=", "D=a=b"]);
        for bad in [&b"=x"[..], b"A B=1", b"A =1", b"\xff=1"] {
            assert!(env_file(bad, lookup).is_err(), "{bad:?}");
        }
        assert!(env("=x").is_err());
        assert_eq!(env("A=").expect("parses"), "A=");
        assert_eq!(env("DEWAR_TEST_NO_SUCH_VARIABLE").expect("parses"), "DEWAR_TEST_NO_SUCH_VARIABLE");
    }

    #[test]
    fn names_of_containers() {
        for name in ["web", "a1", "A_b.c-d"] {
            assert!(container_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "-a", "_a", "a/b", "..", "a b", "names", "é1"] {
            assert!(container_name(name).is_err(), "{name}");
        }
    }
}
