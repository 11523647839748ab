//! Docker's words for sizes and times.

const NANO: u64 = 1_000_000_000;

/// Four significant digits, factors of 1000: `4.26MB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Factors of 1024: `1.5MiB`.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, base: f64, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// `5 minutes`, `About an hour`.
pub fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds / NANO;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (seconds, minutes, (seconds + 1800) / 3600) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (s, ..) if s < 60 => format!("{s} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, h) if h < 48 => format!("{h} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago `then` was, seen from `now`.
pub fn ago(then: u64, now: u64) -> String {
    format!("{} ago", duration(now.saturating_sub(then)))
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Year, month and day of a count of days since 1970 (Howard Hinnant's algorithm for the Gregorian calendar).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let year_of_era = shifted % 400;
    let march_month = (month + 9) % 12;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * march_month + 2) / 5 + day - 1;
    (shifted / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

struct Clock {
    date: (u64, u64, u64),
    time: (u64, u64, u64),
    nanoseconds: u64,
}

fn clock(nanoseconds: u64) -> Clock {
    let seconds = nanoseconds / NANO;
    let of_day = seconds % 86_400;
    Clock {
        date: civil(seconds / 86_400),
        time: (of_day / 3600, of_day / 60 % 60, of_day % 60),
        nanoseconds: nanoseconds % NANO,
    }
}

/// `2026-01-02T03:04:05.000000006Z`
pub fn rfc3339(nanoseconds: u64) -> String {
    let Clock { date: (y, mo, d), time: (h, mi, s), nanoseconds } = clock(nanoseconds);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{nanoseconds:09}Z")
}

/// `2026-01-02 03:04:05 +0000 UTC`
pub fn utc(nanoseconds: u64) -> String {
    let Clock { date: (y, mo, d), time: (h, mi, s), .. } = clock(nanoseconds);
    format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02} +0000 UTC")
}

/// `03:04`
pub fn hour_and_minute(nanoseconds: u64) -> String {
    let Clock { time: (h, mi, _), .. } = clock(nanoseconds);
    format!("{h:02}:{mi:02}")
}

/// Nanoseconds since 1970 from `2026-01-02T03:04:05Z` (parts may be left out from the right), from seconds since 1970,
/// or from a duration before `now` such as `1h30m`.
pub fn point_in_time(text: &str, now: u64) -> Result<u64, String> {
    let fail =
        || format!("invalid time {text:?}: give a date like 2026-01-02T03:04:05Z, seconds, or a duration like 10m");
    if let Some(span) = span(text) {
        return Ok(now.saturating_sub(span));
    }
    if let Some(seconds) = decimal(text) {
        return Ok(seconds);
    }
    date(text).ok_or_else(fail)
}

/// `1700000000` or `1700000000.5`, in nanoseconds.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() < 5 {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(NANO)?.checked_add(nanoseconds)
}

/// `90s`, `1h30m`, in nanoseconds.
pub fn span(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let unit_length = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let factor = match after.get(..unit_length)? {
            "ms" => NANO / 1000,
            "s" => NANO,
            "m" => 60 * NANO,
            "h" => 3600 * NANO,
            "d" => 86_400 * NANO,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = after.get(unit_length..)?;
    }
    (!text.is_empty()).then_some(total)
}

fn date(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let mut parts = date.split('-').map(|p| p.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(1))?);
    if parts.next().is_some() {
        return None;
    }
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut units = [0u64; 3];
    let given = clock.split(':').filter(|p| !p.is_empty());
    for (index, part) in given.enumerate() {
        *units.get_mut(index)? = part.parse().ok()?;
    }
    let [hours, minutes, seconds] = units;
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let total = days_since_1970(year, month, day)? * 86_400 + hours * 3600 + minutes * 60 + seconds;
    total.checked_mul(NANO)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, decimal, binary) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1000B"),
            (4_261_550, "4.262MB", "4.064MiB"),
            (1 << 20, "1.049MB", "1MiB"),
            (133_000_000, "133MB", "126.8MiB"),
            (u64::MAX, "18.45EB", "16EiB"),
        ] {
            assert_eq!((size(bytes).as_str(), binary_size(bytes).as_str()), (decimal, binary));
        }
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (100 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds * NANO), text);
        }
    }

    #[test]
    fn dates_there_and_back() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00.000000000Z", 0),
            ("2000-02-29T23:59:59.000000000Z", 951_868_799),
            ("2026-11-21T03:14:07.000000000Z", 1_795_230_847),
            ("2100-03-01T00:00:00.000000000Z", 4_107_542_400),
        ] {
            assert_eq!(rfc3339(seconds * NANO), text);
            assert_eq!(date(text), Some(seconds * NANO));
        }
        assert_eq!(utc(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(hour_and_minute(3 * 3600 * NANO + 240 * NANO), "03:04");
    }

    #[test]
    fn points_in_time() {
        let now = 1_000_000 * NANO;
        assert_eq!(point_in_time("10m", now), Ok(now - 600 * NANO));
        assert_eq!(point_in_time("1h30m", now), Ok(now - 5400 * NANO));
        assert_eq!(point_in_time("1700000000.5", now), Ok(1_700_000_000 * NANO + NANO / 2));
        assert_eq!(point_in_time("1970-01-02", now), Ok(86_400 * NANO));
        assert_eq!(point_in_time("1970-01-01T00:01", now), Ok(60 * NANO));
        for text in ["", "soon", "10x", "2026-13-01", "2026-01-01T99:00", "2026-01-01-01"] {
            assert!(point_in_time(text, now).is_err(), "{text}");
        }
    }
}
