//! `format`: only those that Chancery's CRDs can use are checked; the real server ignores
//! formats that it does not know, and so does this one.

use std::sync::LazyLock;

use jiff::civil::Date;
use regex::Regex;

/// Whether `text` has the format.
pub fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .is_ok()
        }
        "uuid" => is_uuid(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uri" => text
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/')),
        "duration" => text.parse::<kube::core::Duration>().is_ok(),
        _ => true,
    }
}

/// As the real server has it, and so both more and less than RFC 3339: no leap second, and any
/// offset. (It lets a lower-case t and z through here, and then no rule in CEL can read them.)
fn is_date_time(text: &str) -> bool {
    static TIME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(Z|([+-][0-9]{2}:[0-9]{2}))$")
            .expect("a pattern that compiles")
    });
    let mut parts = text.split('T');
    let date = parts.next().unwrap_or_default();
    let time = parts.next().and_then(|time| TIME.captures(time));
    holds("date", date)
        && time.is_some_and(|time| &time[1] <= "23" && &time[2] <= "59" && &time[3] <= "59")
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
}
