//! Wall-clock times as the probe writes them: RFC 3339 with nanoseconds. Only what Go's
//! `time.Time` puts into JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 86_400;

/// `2006-01-02T15:04:05.000000007Z`. A time before 1970 is written as 1970.
pub(super) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / DAY_S);
    let second = since.as_secs() % DAY_S;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
}

/// Reads [`format()`]'s output, fewer digits of the second, and other zones.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let days = days(date.next()??, date.next()??, date.next()??)?;

    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(number);
    let second = clock.next()?? * 3600 + clock.next()?? * 60 + clock.next()??;
    let nanos = number(&format!("{fraction:0<9}"))?;
    let offset = match zone {
        "Z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let seconds = i64::try_from(number(hours)? * 3600 + number(minutes)? * 60).ok()?;
            if zone.starts_with('-') { -seconds } else { seconds }
        }
    };
    let local = i64::try_from(days * DAY_S + second).ok()?;
    let seconds = u64::try_from(local - offset).ok()?;
    Some(
        UNIX_EPOCH
            + Duration::new(
                seconds,
                u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?,
            ),
    )
}

fn number(digits: &str) -> Option<u64> {
    // Nine digits at most keep the arithmetic above within its type.
    let plain = digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Year, month and day of the day `days` after 1970-01-01 (Hinnant, "chrono-compatible low-level
/// date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` before 1970.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_writes() {
        let at = |seconds, nanos| Some(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(parse("1970-01-01T00:00:00Z"), at(0, 0));
        assert_eq!(parse("2024-02-29T23:59:59.5Z"), at(1_709_251_199, 500_000_000));
        assert_eq!(parse("2024-03-01T01:59:59.123456789+02:00"), at(1_709_251_199, 123_456_789));
        assert_eq!(parse("2024-02-29T18:29:59-05:30"), at(1_709_251_199, 0));
        for bad in [
            "",
            "T",
            "2024-13-01T00:00:00Z",
            "1969-01-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T0:0:+1Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(
            format(UNIX_EPOCH + Duration::new(1_709_251_199, 7)),
            "2024-02-29T23:59:59.000000007Z"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0..200_000_000_000u64, nanos in 0..1_000_000_000u32) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }
    }
}
