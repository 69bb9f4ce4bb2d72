//! Numbers as people read them.

use daitn_messages::units::UnixMillis;

/// `1.2 MiB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// `1,797`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 site`, `5 sites`, `1,797 sites`: a count and its noun, whose plural takes an `s`.
pub(crate) fn counted(n: impl TryInto<u64>, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `240 ms`, `1.3 s`, `2 min 5 s`, `3 h 2 min`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn duration_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// `12s`, `3m`, `2h`, `5d`: how long ago.
pub(crate) fn age(then: UnixMillis, now: UnixMillis) -> String {
    match now.since(then) / 1000 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..86_400 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// `2026-11-23 14:05:09Z`.
pub(crate) fn date_time(at: UnixMillis) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(
            || at.0.to_string(),
            |moment| moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        )
}

/// `96.7 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `0.1638`, and of a training that goes astray `2.9e16`.
pub(crate) fn loss(value: f64) -> String {
    /// Beyond it digits say nothing.
    const PLAIN_MAX: f64 = 1e6;
    if value.abs() < PLAIN_MAX {
        format!("{value:.4}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(52_428_800), "50 MiB");
        assert_eq!(count(1_797), "1,797");
        assert_eq!(count(12), "12");
        assert_eq!(count(1_234_567), "1,234,567");
        let sites = [0_usize, 1, 1_797].map(|n| counted(n, "site"));
        assert_eq!(sites, ["0 sites", "1 site", "1,797 sites"]);
        let losses = [0.163_84, 999_999.0, 28_706_889_466_750_976.0, f64::NAN].map(loss);
        assert_eq!(losses, ["0.1638", "999999.0000", "2.9e16", "NaN"]);
        assert_eq!(duration_ms(240), "240 ms");
        assert_eq!(duration_ms(125_000), "2 min 5 s");
        assert_eq!(age(UnixMillis(0), UnixMillis(7_300_000)), "2h");
        assert_eq!(date_time(UnixMillis(1_000_000_000_000)), "2001-09-09 01:46:40Z");
    }
}
