//! Sizes of memory as people write them.

/// Reads `8GiB`, `512 MiB`, `6GB` or a number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim();
    let found = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    match (number.parse::<f64>(), found) {
        (Ok(number), Some((_, factor))) if number > 0.0 && number * factor >= 1.0 => {
            Ok((number * factor) as u64)
        }
        _ => Err(format!(
            "`{text}` is no size of memory, such as 8GiB or 512MiB"
        )),
    }
}

/// Writes a size in the largest unit that leaves a number of at least 1.
pub fn show_bytes(bytes: u64) -> String {
    let shown = SHOWN.iter().find(|(_, factor)| bytes as f64 >= *factor);
    match shown {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / factor),
        None => format!("{bytes} bytes"),
    }
}

const KIB: f64 = 1024.0;

const SHOWN: &[(&str, f64)] = &[
    ("TiB", KIB * KIB * KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("MiB", KIB * KIB),
    ("KiB", KIB),
];

const UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("B", 1.0),
    ("KiB", KIB),
    ("MiB", KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("TiB", KIB * KIB * KIB * KIB),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
];

#[cfg(test)]
mod tests {
    use super::{parse_bytes, show_bytes};

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes("1.5 mib"), Ok(3 << 19));
        assert_eq!(parse_bytes("6GB"), Ok(6_000_000_000));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        for wrong in ["", "GiB", "0", "-1GiB", "8 parsecs", "1e3", "0.1B"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_bytes(3 << 29), "1.5 GiB");
        assert_eq!(show_bytes(12), "12 bytes");
    }
}
