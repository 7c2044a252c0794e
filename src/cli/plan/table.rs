//! A timetable for people: a line for each thing that happens, and what to know besides.

use std::fmt::Write as _;

use super::{Plan, Ring, period};

/// The table, and below it what was taken for granted.
pub fn render(plan: &Plan) -> String {
    let mut lines = vec![["TIME", "RING", "KEY", "WHAT", "WHY"].map(str::to_owned)];
    for (ring, row) in plan.rows() {
        lines.push([
            row.at.to_string(),
            ring.shown.clone(),
            format!("#{}", row.key),
            row.event.to_string(),
            row.why.to_string(),
        ]);
    }
    let mut text = String::new();
    if lines.len() > 1 {
        text += &columns(&lines);
        text.push('\n');
    }
    for ring in &plan.rings {
        about(ring, &mut text);
    }
    let _ = writeln!(
        text,
        "From {} until {}, if each ring is new then and nobody intervenes.",
        plan.from, plan.until
    );
    text
}

fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let mut text = String::new();
    let widths: [usize; N] = std::array::from_fn(|i| {
        let widths = lines.iter().map(|line| line[i].chars().count());
        widths.max().unwrap_or(0)
    });
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(padded, "{cell:<width$}  ");
        }
        text += padded.trim_end();
        text.push('\n');
    }
    text
}

fn about(ring: &Ring, text: &mut String) {
    let policy = &ring.policy;
    let interval = match policy.interval {
        Some(interval) => format!("interval {}", period(interval)),
        None => "no interval".to_owned(),
    };
    let _ = write!(
        text,
        "{} ({}): {interval}, publishLead {}, gracePeriod {}, retention {}",
        ring.shown,
        ring.file,
        period(policy.lead()),
        period(ring.grace()),
        period(policy.retention)
    );
    for (name, time) in [
        ("validFrom", policy.window.from),
        ("validTo", policy.window.to),
    ] {
        if let Some(time) = time {
            let _ = write!(text, ", {name} {time}");
        }
    }
    text.push_str(".\n");
    for note in &ring.notes {
        let _ = writeln!(text, "  {note}");
    }
}
