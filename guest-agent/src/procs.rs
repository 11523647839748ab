//! Rows of `top`, read from the agent's own procfs.
//!
//! A process chooses its name and command line itself, newlines and parentheses included: `stat` is cut at its *last*
//! parenthesis, texts are bounded, and control characters are replaced.

use std::{fs::File, io::Read};

use dewar_protocol::ProcessInfo;

/// Most bytes read of one file.
const MAX_FILE: u64 = 4096;
/// Most processes listed; the reply must fit into a frame.
pub const MAX_PROCESSES: usize = 512;

/// Describes the processes; those that ended meanwhile are left out. `user` is `root` or the uid in decimal.
pub fn list(pids: &[u32]) -> Vec<ProcessInfo> {
    let page_kib = (rustix::param::page_size() / 1024) as u64;
    pids.iter().take(MAX_PROCESSES).filter_map(|&pid| describe(pid, page_kib)).collect()
}

fn describe(pid: u32, page_kib: u64) -> Option<ProcessInfo> {
    let stat = read(pid, "stat")?;
    let stat = parse_stat(&stat)?;
    let uid = parse_uid(&read(pid, "status")?)?;
    Some(ProcessInfo {
        pid,
        ppid: stat.ppid,
        uid,
        user: if uid == 0 { "root".to_owned() } else { uid.to_string() },
        state: stat.state,
        tty: tty_name(stat.tty),
        started_ticks: stat.started_ticks,
        cpu_ticks: stat.cpu_ticks,
        rss_kib: stat.rss_pages.saturating_mul(page_kib),
        command: command(&read(pid, "cmdline")?, stat.comm),
    })
}

/// The beginning of a file of a process.
pub fn read(pid: u32, file: &str) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    Some(content)
}

/// What is used of proc(5)'s `/proc/pid/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    comm: &'a [u8],
    state: char,
    ppid: u32,
    tty: u32,
    cpu_ticks: u64,
    started_ticks: u64,
    rss_pages: u64,
}

fn parse_stat(stat: &[u8]) -> Option<Stat<'_>> {
    let open = stat.iter().position(|&b| b == b'(')?;
    let close = stat.iter().rposition(|&b| b == b')')?;
    let comm = stat.get(open.checked_add(1)?..close)?;
    let rest = std::str::from_utf8(stat.get(close.checked_add(1)?..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the first field after the name is the third.
    let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
    let user_ticks: u64 = field(14)?.parse().ok()?;
    let system_ticks: u64 = field(15)?.parse().ok()?;
    let tty: i32 = field(7)?.parse().ok()?;
    Some(Stat {
        comm,
        state: field(3)?.chars().next()?,
        ppid: field(4)?.parse().ok()?,
        tty: tty.cast_unsigned(),
        cpu_ticks: user_ticks.saturating_add(system_ticks),
        started_ticks: field(22)?.parse().ok()?,
        rss_pages: field(24)?.parse().ok()?,
    })
}

/// The effective uid, as ps(1) shows.
fn parse_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn tty_name(device: u32) -> String {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match (major, minor) {
        (0, 0) => "?".to_owned(),
        (4, 0..=63) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor.saturating_sub(64)),
        (5, 1) => "console".to_owned(),
        (136..=143, _) => format!("pts/{minor}"),
        (229, _) => format!("hvc{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

/// The arguments with spaces between them, or the name in brackets for a kernel thread or a zombie.
fn command(cmdline: &[u8], comm: &[u8]) -> String {
    let arguments = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if arguments.iter().all(|&b| b == 0) {
        return format!("[{}]", printable(comm));
    }
    let spaced: Vec<u8> = arguments.iter().map(|&b| if b == 0 { b' ' } else { b }).collect();
    printable(&spaced)
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &[u8] =
        b") S 7 42 42 34816 42 4194304 100 0 0 0 11 22 0 0 20 0 1 0 555 1000000 25 18446744073709551615";

    fn stat_line(comm: &[u8]) -> Vec<u8> {
        [b"42 (", comm, TAIL].concat()
    }

    #[test]
    fn stat_is_read_whatever_the_process_calls_itself() {
        for comm in [&b"sh"[..], b"a b", b") R 1 (", b"x\ny)", b"", b"\xff\xfe", b"((((("] {
            let line = stat_line(comm);
            let stat = parse_stat(&line).expect("parses");
            let expected =
                Stat { comm, state: 'S', ppid: 7, tty: 34816, cpu_ticks: 33, started_ticks: 555, rss_pages: 25 };
            assert_eq!(stat, expected);
        }
    }

    #[test]
    fn a_stat_that_is_cut_anywhere_is_no_stat() {
        let line = stat_line(b"sh");
        let end_of_rss = line.len() - " 18446744073709551615".len() - "5".len();
        for length in 0..end_of_rss {
            assert_eq!(parse_stat(&line[..length]), None, "{length}");
        }
        assert_eq!(parse_stat(b")("), None);
    }

    #[test]
    fn the_effective_uid_is_taken() {
        assert_eq!(parse_uid(b"Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\n"), Some(1001));
        assert_eq!(parse_uid(b"Name:\tx\nUid:\t1000\n"), None);
        assert_eq!(parse_uid(b"\xff\xff"), None);
    }

    #[test]
    fn terminals_have_their_names() {
        for (device, name) in [
            (0, "?"),
            (0x8800, "pts/0"),
            (0x8803, "pts/3"),
            (0x0010_8801, "pts/257"),
            (0x0401, "tty1"),
            (0x0440, "ttyS0"),
            (0x0501, "console"),
            (0xe500, "hvc0"),
            (0x0700, "7:0"),
        ] {
            assert_eq!(tty_name(device), name);
        }
    }

    #[test]
    fn commands_are_one_printable_line() {
        assert_eq!(command(b"sleep\x0010\0", b"sleep"), "sleep 10");
        assert_eq!(command(b"", b"kworker/0:1"), "[kworker/0:1]");
        assert_eq!(command(b"\0\0\0", b"a\nb"), "[a?b]");
        assert_eq!(command(b"a\x1b[2Jb\xff", b""), "a?[2Jb\u{fffd}");
    }

    #[test]
    fn this_process_is_listed_and_one_that_is_not_there_is_not() {
        let me = std::process::id();
        let rows = list(&[me, u32::MAX]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].pid, me);
        assert_eq!(rows[0].uid, rustix::process::geteuid().as_raw());
        assert!(rows[0].rss_kib > 0);
    }
}
