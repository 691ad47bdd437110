//! Dates and times of YAML 1.1, as Python's `isoformat()` writes them.

/// `None` when the text does not look like a YAML 1.1 timestamp; an error when it names no point in time.
pub fn parse(text: &str) -> Option<Result<String, &'static str>> {
    let mut rest = Rest(text.as_bytes());
    let (year, year_digits) = rest.number(4, 4)?;
    rest.byte(b'-')?;
    let (month, month_digits) = rest.number(1, 2)?;
    rest.byte(b'-')?;
    let (day, day_digits) = rest.number(1, 2)?;
    debug_assert_eq!(year_digits, 4);
    if rest.0.is_empty() {
        // A date alone has two digits each; `2020-1-2` is text.
        if (month_digits, day_digits) != (2, 2) {
            return None;
        }
        return Some(date(year, month, day));
    }
    if rest.byte(b'T').or_else(|| rest.byte(b't')).is_none() && rest.blanks() == 0 {
        return None;
    }
    let (hour, _) = rest.number(1, 2)?;
    rest.byte(b':')?;
    let (minute, _) = rest.number(2, 2)?;
    rest.byte(b':')?;
    let (second, _) = rest.number(2, 2)?;
    let fraction = if rest.byte(b'.').is_some() { rest.digits() } else { &[] };
    rest.blanks();
    let zone = if rest.0.is_empty() { Zone::None } else { rest.zone()? };
    if !rest.0.is_empty() {
        return None;
    }
    Some(date(year, month, day).and_then(|date| {
        if hour > 23 || minute > 59 || second > 59 {
            return Err("no such time of day");
        }
        let mut out = format!("{date}T{hour:02}:{minute:02}:{second:02}");
        let micros = microseconds(fraction);
        if micros != 0 {
            out.push_str(&format!(".{micros:06}"));
        }
        if let Zone::Offset { negative, minutes } = zone {
            if minutes >= 24 * 60 {
                return Err("no such time zone");
            }
            let sign = if negative && minutes != 0 { '-' } else { '+' };
            out.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        Ok(out)
    }))
}

enum Zone {
    None,
    Offset { negative: bool, minutes: u32 },
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self, wanted: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[wanted])?;
        Some(())
    }

    fn digits(&mut self) -> &'a [u8] {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        digits
    }

    /// A number of `least` to `most` digits; more of them fail at what must follow.
    fn number(&mut self, least: usize, most: usize) -> Option<(u32, usize)> {
        let count = self.0.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some((digits.iter().fold(0, |sum, b| sum * 10 + u32::from(b - b'0')), count))
    }

    fn blanks(&mut self) -> usize {
        let count = self.0.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.0 = &self.0[count..];
        count
    }

    fn zone(&mut self) -> Option<Zone> {
        if self.byte(b'Z').is_some() {
            return Some(Zone::Offset { negative: false, minutes: 0 });
        }
        let negative = self.byte(b'-').is_some();
        if !negative {
            self.byte(b'+')?;
        }
        let (hours, _) = self.number(1, 2)?;
        let minutes = if self.byte(b':').is_some() { self.number(2, 2)?.0 } else { 0 };
        Some(Zone::Offset { negative, minutes: hours * 60 + minutes })
    }
}

fn date(year: u32, month: u32, day: u32) -> Result<String, &'static str> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return Err("no such month"),
    };
    if year == 0 || day == 0 || day > days {
        return Err("no such day");
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

/// The first six digits count; further ones are cut, not rounded.
fn microseconds(fraction: &[u8]) -> u32 {
    let mut digits = fraction.iter().map(|b| u32::from(b - b'0'));
    (0..6).fold(0, |sum, _| sum * 10 + digits.next().unwrap_or(0))
}
