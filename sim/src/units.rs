//! Times, sizes and shares as plans write them: `2.5s`, `300us`, `64KiB`, `5%`. What is printed is read
//! again as the same value.

use std::time::Duration;

const TIMES: &[(&str, u128)] = &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
const SIZES: &[(&str, u64)] = &[("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// In the largest unit that leaves at most three digits behind the point.
pub fn show_time(time: Duration) -> String {
    let nanos = time.as_nanos();
    let (unit, size) = match nanos {
        n if n >= 1_000_000_000 && n.is_multiple_of(1_000_000) || n == 0 => TIMES[2],
        n if n >= 1_000_000 && n.is_multiple_of(1_000) => TIMES[1],
        _ => TIMES[0],
    };
    let (whole, part) = (nanos / size, nanos % size * 1_000 / size);
    let part = format!("{part:03}");
    match part.trim_end_matches('0') {
        "" => format!("{whole}{unit}"),
        part => format!("{whole}.{part}{unit}"),
    }
}

pub fn read_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let (_, size) = TIMES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("{text:?} is not a time: us, ms or s"))?;
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a time"))?;
    if !(0.0..1e9).contains(&number) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(Duration::from_nanos((number * *size as f64).round() as u64))
}

/// `shortest..longest`.
pub fn show_times((shortest, longest): (Duration, Duration)) -> String {
    format!("{}..{}", show_time(shortest), show_time(longest))
}

pub fn read_times(text: &str) -> Result<(Duration, Duration), String> {
    let (shortest, longest) = text.split_once("..").unwrap_or((text, text));
    let times = (read_time(shortest)?, read_time(longest)?);
    if times.0 > times.1 { Err(format!("{text:?} goes backwards")) } else { Ok(times) }
}

pub fn show_size(bytes: u64) -> String {
    let fits = |(_, size): &&(&str, u64)| bytes >= *size && bytes.is_multiple_of(*size);
    let (unit, size) = SIZES.iter().find(fits).copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

pub fn read_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let size = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
    let number = number.parse::<u64>().ok();
    let bytes = number.zip(size).and_then(|(number, size)| number.checked_mul(size));
    bytes.ok_or_else(|| format!("{text:?} is not a size: B, KiB or MiB"))
}

/// A share of 1 as a percentage.
pub fn show_share(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

pub fn read_share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| format!("{text:?} is not a share in %"))
}

fn split(text: &str) -> (&str, &str) {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    text.split_at(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for micros in [0, 1, 50, 999, 1_000, 1_500, 2_500_000, 30_000_000, 30_000_001, 1_234_567] {
            let time = Duration::from_micros(micros);
            assert_eq!(read_time(&show_time(time)), Ok(time), "{}", show_time(time));
        }
        assert_eq!(show_time(Duration::from_millis(2_500)), "2.5s");
        assert_eq!(show_time(Duration::from_micros(1_500)), "1.5ms");
        for bytes in [0, 1, 1_000, 1_024, 65_536, 1 << 20, 3 << 20] {
            assert_eq!(read_size(&show_size(bytes)), Ok(bytes));
        }
        for share in [0.0, 0.001, 0.05, 0.125, 1.0] {
            assert_eq!(read_share(&show_share(share)), Ok(share));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(read_time("5").is_err());
        assert!(read_time("-1s").is_err());
        assert!(read_times("2s..1s").is_err());
        assert!(read_size("4k").is_err());
        assert!(read_share("101%").is_err());
    }
}
