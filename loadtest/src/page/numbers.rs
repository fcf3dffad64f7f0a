//! Numbers as people read them.

/// Three digits that count, thousands apart; what is tiny keeps its first digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if value.fract() == 0.0 && size < 1e15 => 0,
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        0.01.. => 3,
        _ => 4,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// All that matters of it, for tables: whole numbers whole, others with three decimals.
pub fn exact(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        grouped(&format!("{value:.0}"))
    } else {
        grouped(&format!("{value:.3}"))
    }
}

/// For an axis: thousands as k and M.
pub fn tick(value: f64) -> String {
    let (scaled, end) = match value.abs() {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{end}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Microseconds in the unit that suits them.
pub fn microseconds(value: f64) -> String {
    match value {
        1e6.. => format!("{} s", tick(value / 1e6)),
        1e3.. => format!("{} ms", tick(value / 1e3)),
        _ => format!("{} µs", tick(value)),
    }
}

fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_once('.').map_or((text, String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}{rest}")
}

/// A moment in UTC, `2026-11-21 10:15`.
pub fn date(unix_s: u64) -> String {
    let (days, minutes) = (unix_s / 86_400, unix_s % 86_400 / 60);
    // Years begin in March, so that the leap day is the last one; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{}-{month:02}-{day:02} {:02}:{:02}", year + era * 400 + carry, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_counts() {
        for (value, text) in
            [(0.0, "0"), (0.541, "0.54"), (9.2449, "9.24"), (37.12, "37.1"), (46_400.7, "46,401"), (-0.0125, "-0.013")]
        {
            assert_eq!(short(value), text);
        }
        assert_eq!((exact(1_234_567.0), exact(0.5123)), ("1,234,567".to_owned(), "0.512".to_owned()));
        assert_eq!(
            (tick(200_000.0), tick(2_500.0), tick(0.25)),
            ("200k".to_owned(), "2500".to_owned(), "0.25".to_owned())
        );
        assert_eq!((microseconds(1_500.0), microseconds(20.0)), ("1.5 ms".to_owned(), "20 µs".to_owned()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_199, "2024-02-29 23:59"),
            (1_735_689_600, "2025-01-01 00:00"),
        ] {
            assert_eq!(date(unix_s), text);
        }
    }
}
