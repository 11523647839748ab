//! Names of signals, x86_64 numbering.

/// In the order of their numbers, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal given as `9`, `KILL`, `SIGKILL` or `RTMIN+3`, in any case.
pub(super) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(place) = NAMES.iter().position(|n| *n == name) {
        return i32::try_from(place).ok()?.checked_add(1);
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(*number);
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(plus), _) => RTMIN.checked_add(plus.strip_prefix('+')?.parse().ok()?)?,
        (_, Some(minus)) => RTMAX.checked_sub(minus.strip_prefix('-')?.parse().ok()?)?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// `SIGKILL` for 9; the number for one without a name.
pub(super) fn name(signal: i32) -> String {
    let place = usize::try_from(signal).ok().and_then(|s| s.checked_sub(1));
    place.and_then(|p| NAMES.get(p)).map_or_else(|| signal.to_string(), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_by_every_spelling_of_their_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", libc::SIGTERM),
            ("usr1", libc::SIGUSR1),
            ("WINCH", libc::SIGWINCH),
            ("SYS", libc::SIGSYS),
            ("POLL", libc::SIGIO),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["0", "65", "-9", "", "SIG", "FOO", "RTMIN+31", "RTMIN-1", "RTMAX+1"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "40");
    }
}
