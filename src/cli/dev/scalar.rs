//! What plain text in YAML stands for, as kubectl reads it: more than YAML 1.2 has, `yes` and
//! `0777` among them, so that a manifest means the same here and on a cluster.

use serde_json::{Number, Value};

/// The value of a scalar without quotes.
pub fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Ok(true.into());
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Ok(false.into());
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => {
            return Err(format!(
                "{text} is no number that an object can hold: put it in quotes if text is meant."
            ));
        }
        _ => {}
    }
    let numeric = text
        .trim_start_matches(['+', '-'])
        .starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !numeric {
        return Ok(text.into());
    }
    Ok(integer(text)
        .or_else(|| float(text))
        .map_or_else(|| text.into(), Value::Number))
}

fn integer(text: &str) -> Option<Number> {
    let clean = text.replace('_', "");
    let (sign, digits) = match clean.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let size = i128::from_str_radix(digits, radix).ok()? * sign;
    if let Ok(small) = i64::try_from(size) {
        return Some(small.into());
    }
    u64::try_from(size).ok().map(Number::from)
}

fn float(text: &str) -> Option<Number> {
    let form = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if !form || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_text_means_what_kubectl_takes_it_for() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("3072", json!(3072)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("0x1F", json!(31)),
            ("0777", json!(511)),
            ("0o17", json!(15)),
            ("089", json!(89.0)),
            ("1_000", json!(1000)),
            (
                "18446744073709551615",
                json!(18_446_744_073_709_551_615_u64),
            ),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("5m", json!("5m")),
            ("2026-01-02", json!("2026-01-02")),
            ("2026-01-02T03:04:05Z", json!("2026-01-02T03:04:05Z")),
            ("-", json!("-")),
            (".", json!(".")),
            ("0x", json!("0x")),
            ("é", json!("é")),
        ] {
            assert_eq!(plain(text), Ok(value), "{text:?}");
        }
        assert!(plain(".inf").is_err());
    }
}
