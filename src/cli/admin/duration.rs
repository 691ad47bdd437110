//! Durations on the command line.

use std::time::Duration;

/// Reads `90d`, `12h`, `30m` or `45s`; at most ten years.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    const MAX_SECONDS: u64 = 10 * 366 * 86_400;
    let bad = || "write it like 90d, 12h, 30m or 45s, and at most ten years".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = number.checked_mul(factor).filter(|s| (1..=MAX_SECONDS).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_bound() {
        assert_eq!(parse("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse("1s"), Ok(Duration::from_secs(1)));
        for bad in ["", "d", "90", "0d", "-1d", "1.5h", "1é", "99999999999999999999d", "4000d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
