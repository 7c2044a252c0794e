//! A timetable as a picture: a bar for each key, with its phases along an axis of time. The same
//! timetable gives the same bytes. Its colours are read on white as well as on black, and the phases
//! differ in height too.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Plan, Ring, period};
use crate::domain::rotation::timetable::{Event, KeyTimes};

const WIDTH: f64 = 900.0;
/// Where the axis begins and ends; before it stand the keys' numbers.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 884.0;
const LEGEND: f64 = 44.0;
const HEADING: f64 = 30.0;
const BAR: f64 = 24.0;
const AXIS: f64 = 30.0;
/// A phase that is shorter is drawn so wide, to be seen at all.
const NARROWEST: f64 = 1.5;
/// More labels would run into each other.
const MOST_TICKS: i64 = 7;
const TEXT: &str = "#6e7681";

/// A phase of a key's life.
struct Phase {
    begins: Event,
    ends: &'static [Event],
    color: &'static str,
    height: f64,
    legend: &'static str,
}

const PHASES: [Phase; 4] = [
    Phase {
        begins: Event::LeavesJwks,
        ends: &[Event::Deleted],
        color: "#8c959f",
        height: 3.0,
        legend: "key pair kept",
    },
    Phase {
        begins: Event::Retired,
        ends: &[Event::LeavesJwks],
        color: "#d4a72c",
        height: 9.0,
        legend: "verifies only",
    },
    Phase {
        begins: Event::Published,
        ends: &[Event::Signs, Event::Retired, Event::LeavesJwks],
        color: "#54aeff",
        height: 9.0,
        legend: "in the JWKS, does not sign yet",
    },
    Phase {
        begins: Event::Signs,
        ends: &[Event::Retired, Event::LeavesJwks],
        color: "#2da44e",
        height: 17.0,
        legend: "signs",
    },
];

/// More keys of one ring are bars that nobody can tell apart.
pub const MOST_BARS: usize = 60;

/// The time that the picture shows.
struct Frame {
    from: Timestamp,
    until: Timestamp,
    /// The ring and the key before which it ends early.
    cut: Option<(String, i64)>,
}

impl Frame {
    /// All of the plan, or as much as has no more than [`MOST_BARS`] keys of any ring.
    fn of(plan: &Plan) -> Self {
        let too_many = plan.rings.iter().filter_map(|ring| {
            let key = *ring.timetable.keys().get(MOST_BARS)?;
            Some((key.at(Event::Made)?, (ring.shown.clone(), key.key)))
        });
        let (until, cut) = too_many.min().unzip();
        Self {
            from: plan.from,
            until: until.unwrap_or(plan.until),
            cut,
        }
    }

    /// The keys of a ring that are made by then.
    fn keys(&self, ring: &Ring) -> Vec<KeyTimes> {
        let mut keys = ring.timetable.keys();
        let until = |k: &KeyTimes| match self.cut {
            Some(_) => k.at(Event::Made).is_none_or(|at| at < self.until),
            None => true,
        };
        keys.retain(until);
        keys
    }
}

/// The picture.
pub fn render(plan: &Plan) -> String {
    let frame = Frame::of(plan);
    let drawn = |ring: &Ring| frame.keys(ring).len();
    let bars: usize = plan.rings.iter().map(|ring| drawn(ring).max(1)).sum();
    let mut y = LEGEND;
    let bottom = y + size(plan.rings.len()) * HEADING + size(bars) * BAR;
    let height = bottom + AXIS * if frame.cut.is_some() { 2.0 } else { 1.0 };
    let title = format!("Signing keys from {} until {}", frame.from, frame.until);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"title\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{TEXT}\">\n<title id=\"title\">{title}</title>\n"
    );
    legend(&mut svg);
    axis(&frame, bottom, &mut svg);
    for ring in &plan.rings {
        heading(ring, y, &mut svg);
        y += HEADING;
        let keys = frame.keys(ring);
        let until = ring.timetable.cut.unwrap_or(frame.until).min(frame.until);
        for key in &keys {
            bar(&frame, key, until, y, &mut svg);
            y += BAR;
        }
        if keys.is_empty() {
            let _ = writeln!(
                svg,
                "<text x=\"{LEFT}\" y=\"{}\">no key is made</text>",
                y + 16.0
            );
            y += BAR;
        }
    }
    if let Some((ring, key)) = &frame.cut {
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{}\">Ends at {}, before #{key} of {}: {MOST_BARS} keys fit. For what follows give a later --from, or -o table.</text>",
            bottom + AXIS + 14.0,
            frame.until,
            escape(ring)
        );
    }
    svg + "</svg>\n"
}

/// In the order of a key's life, not in that in which they are drawn.
fn legend(svg: &mut String) {
    let mut x = LEFT;
    for phase in [&PHASES[2], &PHASES[3], &PHASES[1], &PHASES[0]] {
        rect(x, 18.0, 24.0, phase, svg);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"22.5\">{}</text>",
            x + 32.0,
            phase.legend
        );
        x += 60.0 + 6.8 * size(phase.legend.len());
    }
}

fn heading(ring: &Ring, y: f64, svg: &mut String) {
    let policy = &ring.policy;
    let interval = match policy.interval {
        Some(interval) => format!("every {}", period(interval)),
        None => "no schedule".to_owned(),
    };
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\"><tspan font-weight=\"bold\">{}</tspan> · {interval} · lead {} · grace {} · retention {}</text>",
        y + 18.0,
        escape(&ring.shown),
        period(policy.lead()),
        period(ring.grace()),
        period(policy.retention)
    );
}

fn bar(frame: &Frame, key: &KeyTimes, until: Timestamp, y: f64, svg: &mut String) {
    let told = Event::ALL.map(|event| {
        let at = key.at(event)?;
        Some(format!("{event} {at}"))
    });
    let told: Vec<String> = told.into_iter().flatten().collect();
    let _ = writeln!(svg, "<g><title>#{}: {}</title>", key.key, told.join(", "));
    let middle = y + BAR / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">#{}</text>",
        LEFT - 10.0,
        middle + 4.5,
        key.key
    );
    for phase in &PHASES {
        let Some(begins) = key.at(phase.begins) else {
            continue;
        };
        let ends = phase.ends.iter().find_map(|end| key.at(*end));
        let ends = ends.unwrap_or(until).min(until);
        if ends > begins {
            let (from, to) = (x_of(frame, begins), x_of(frame, ends));
            // It still ends where the next one begins.
            let width = (to - from).max(NARROWEST);
            rect((to - width).max(LEFT), middle, width, phase, svg);
        }
    }
    svg.push_str("</g>\n");
}

fn rect(x: f64, middle: f64, width: f64, phase: &Phase, svg: &mut String) {
    let Phase { color, height, .. } = phase;
    let y = middle - height / 2.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>"
    );
}

fn axis(frame: &Frame, bottom: f64, svg: &mut String) {
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {bottom}H{RIGHT}\" stroke=\"{TEXT}\"/>"
    );
    for (at, label) in ticks(frame.from, frame.until) {
        let x = x_of(frame, at);
        // At the edges it would be cut off.
        let anchor = match x {
            _ if x < LEFT + 30.0 => "start",
            _ if x > RIGHT - 30.0 => "end",
            _ => "middle",
        };
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {LEGEND}V{bottom}\" stroke=\"{TEXT}\" stroke-opacity=\"0.3\"/>\n<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
            bottom + 18.0
        );
    }
}

/// The times that the axis names: whole seconds to days, or the first days of months.
fn ticks(from: Timestamp, until: Timestamp) -> Vec<(Timestamp, String)> {
    const STEPS: [i64; 19] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
        172_800, 604_800,
    ];
    let (begin, end) = (from.as_second(), until.as_second());
    let span = end - begin;
    let Some(step) = STEPS.into_iter().find(|step| span / step <= MOST_TICKS) else {
        return months(from, until);
    };
    // From a midnight on, where it is days.
    let first = if step > 86_400 { 86_400 } else { step };
    let mut second = begin.div_euclid(first) * first;
    if second < begin {
        second += first;
    }
    let mut ticks = Vec::new();
    while second <= end {
        let Ok(at) = Timestamp::from_second(second) else {
            break;
        };
        let format = match step {
            86_400.. => "%Y-%m-%d",
            60.. => "%m-%d %H:%M",
            _ => "%H:%M:%S",
        };
        ticks.push((at, at.strftime(format).to_string()));
        second += step;
    }
    ticks
}

fn months(from: Timestamp, until: Timestamp) -> Vec<(Timestamp, String)> {
    let (first, last) = (date_of(from), date_of(until));
    let count = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month()) - 1;
    let span = count(last) - count(first);
    let steps = [1, 2, 3, 6, 12, 24, 60, 120, 240];
    let step = steps.into_iter().find(|step| span / step < MOST_TICKS);
    let step = step.unwrap_or(1200);
    let mut month = count(first).div_euclid(step) * step;
    let mut ticks = Vec::new();
    while month <= count(last) {
        let begins = i16::try_from(month.div_euclid(12))
            .ok()
            .zip(i8::try_from(month.rem_euclid(12) + 1).ok())
            .and_then(|(year, month)| Date::new(year, month, 1).ok())
            .and_then(|date| date.to_zoned(TimeZone::UTC).ok());
        if let Some(at) = begins.map(|day| day.timestamp())
            && (from..=until).contains(&at)
        {
            ticks.push((at, at.strftime("%Y-%m-%d").to_string()));
        }
        month += step;
    }
    ticks
}

fn date_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn x_of(frame: &Frame, at: Timestamp) -> f64 {
    let part = at.duration_since(frame.from).as_secs_f64();
    let whole = frame.until.duration_since(frame.from).as_secs_f64();
    LEFT + (RIGHT - LEFT) * (part / whole).clamp(0.0, 1.0)
}

fn size(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_names_round_times_whatever_the_span() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        for (from, until, labels) in [
            (
                "2027-01-01T00:00:00Z",
                "2027-04-01T00:00:00Z",
                &["2027-01-01", "2027-02-01", "2027-03-01", "2027-04-01"][..],
            ),
            (
                "2027-01-01T05:00:00Z",
                "2027-01-15T05:00:00Z",
                &[
                    "2027-01-02",
                    "2027-01-04",
                    "2027-01-06",
                    "2027-01-08",
                    "2027-01-10",
                    "2027-01-12",
                    "2027-01-14",
                ],
            ),
            (
                "2027-01-31T23:59:30Z",
                "2027-02-01T00:00:10Z",
                &["23:59:30", "23:59:40", "23:59:50", "00:00:00", "00:00:10"],
            ),
            (
                "2027-01-01T00:00:00Z",
                "2027-01-01T20:00:00Z",
                &[
                    "01-01 00:00",
                    "01-01 03:00",
                    "01-01 06:00",
                    "01-01 09:00",
                    "01-01 12:00",
                    "01-01 15:00",
                    "01-01 18:00",
                ],
            ),
        ] {
            let ticks = ticks(at(from), at(until));
            let named: Vec<&str> = ticks.iter().map(|(_, label)| &**label).collect();
            assert_eq!(named, labels);
        }
        for days in 1..3000 {
            let from = at("2027-03-05T07:11:13Z");
            let until = from + jiff::SignedDuration::from_hours(24 * days);
            let ticks = ticks(from, until);
            assert!((1..=8).contains(&ticks.len()), "{days} days: {ticks:?}");
        }
        let century = ticks(at("2027-01-01T00:00:00Z"), at("2126-12-07T00:00:00Z"));
        assert!((2..=8).contains(&century.len()), "{century:?}");
    }
}
