//! `chancery plan`: when each key of the rings in some manifests will be made, sign, retire and go.
//!
//! The manifests are read as `chancery dev` reads them, and judged by the same API server in
//! memory; the timetable comes from the function that drives the operator.

mod json;
mod notes;
mod out;
mod span;
mod svg;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use self::span::{Instant, Span};
use super::args::{self, SettingsArgs};
use super::dev::kinds::Kinds;
use super::dev::manifests::{self, Document, Found, Problem};
use super::dev::objects::Objects;
use super::dev::report::complain;
use crate::api::v1alpha1::{KeyAudience, SigningKey, all_crds};
use crate::clock;
use crate::controllers::{algorithm_violation, policy_violation, rotation_policy};
use crate::domain::period::Period;
use crate::domain::rotation::timetable::{MOST_KEYS, Timetable, timetable};
use crate::domain::rotation::{MOST_PUBLISHED, Policy, Source};
use crate::domain::settings::Settings;
use crate::embedded::{ApiServer, Ids, Options};

/// `chancery plan`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct PlanArgs {
    /// Files with manifests, or directories of them (*.yaml, *.yml, *.json). Only `SigningKey`s
    /// count.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// When the rings are made: a time (RFC 3339) such as 2027-01-01T00:00:00Z, or a date. Now where
    /// it is not given.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Instant>,

    /// How far to look ahead: days (of 24h), hours, minutes and seconds, such as 90d, 36h or 1d12h.
    /// Manifests and settings have no days: write 24h there.
    #[arg(
        long = "for",
        value_name = "DURATION",
        default_value = "90d",
        allow_hyphen_values = true
    )]
    span: Span,

    /// What to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Write it into this file rather than to stdout. Where something is wrong, the file stays as it
    /// is.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsArgs,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each thing that happens, for people.
    Table,
    /// The same, and the times of each key, for programs.
    Json,
    /// A timeline, a bar for each key.
    Svg,
}

const HELP: &str = "\
Try it:
  chancery plan examples/rotation --from 2027-01-01

Each line is something that happens to a key, and why. A ring is taken to be new at --from, and
nobody to intervene. Rings on a cluster rotate up to a tenth of their interval (a day at most)
earlier, each by a time of its own that follows from its UID, which a manifest does not have.

The flags of the release count, as they bound leads and graces:
  chancery plan examples/rotation --max-token-ttl 8h --jwks-max-age 1h

As a picture, and for programs:
  chancery plan examples/rotation --from 2027-01-01 -o svg --out rotation.svg
  chancery plan examples/rotation --from 2027-01-01 -o json";

/// The timetables of some rings.
#[derive(Debug)]
struct Plan {
    from: Timestamp,
    until: Timestamp,
    rings: Vec<Ring>,
}

/// A ring, and what will happen to it.
#[derive(Debug)]
struct Ring {
    namespace: String,
    name: String,
    /// Its name, with the namespace where several rings stand in several.
    shown: String,
    /// The file that it stands in.
    file: String,
    audience: KeyAudience,
    priority: i32,
    policy: Policy,
    timetable: Timetable,
    /// What a person should know besides, in sentences.
    notes: Vec<String>,
}

/// Prints what will happen.
pub async fn run(plan: PlanArgs) -> Result<(), String> {
    let mut settings = plan.settings.load()?;
    if settings.issuer.is_empty() {
        // Every release has one, and no timetable depends on it.
        settings.issuer = "http://127.0.0.1:8080".into();
    }
    let settings = args::judged(settings)?;
    let from = plan.from.map_or_else(now, |Instant(at)| at);
    let until = from
        .checked_add(SignedDuration::from_secs(plan.span.seconds()))
        .map_err(|_| {
            format!(
                "--for {} from {from} ends after the year 9999: give less",
                plan.span
            )
        })?;
    let mut rings = read(&plan.paths, &settings, from, until).await?;
    notes::tell_who_signs(&mut rings);
    let several = rings.iter().any(|r| r.namespace != rings[0].namespace);
    for ring in &mut rings {
        ring.shown = if several {
            format!("{}/{}", ring.namespace, ring.name)
        } else {
            ring.name.clone()
        };
    }
    let done = Plan { from, until, rings };
    let text = match plan.output {
        Format::Table => table::render(&done),
        Format::Json => json::render(&done)?,
        Format::Svg => svg::render(&done),
    };
    if let Some(path) = plan.out {
        return out::write(&path, &text);
    }
    super::print(&text)
}

/// Now, to the second.
fn now() -> Timestamp {
    let now = clock::system().now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The rings of these files, each judged as the API server would; what is wrong is told.
async fn read(
    paths: &[PathBuf],
    settings: &Settings,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Ring>, String> {
    let crds = all_crds();
    let kinds = Kinds::new(&crds).only("SigningKey");
    let found = find(paths);
    let manifests = manifests::read(&found, &kinds);
    let mut problems = manifests.problems;
    let api = ApiServer::open(Options {
        crds,
        state_dir: None,
        clock: clock::system(),
        ids: Ids::Random,
    })
    .map_err(|e| e.to_string())?;
    let objects = Objects::new(api.client("default"));
    let mut rings = Vec::new();
    for document in &manifests.documents {
        match judge(document, &kinds, &objects).await {
            Ok(ring) => rings.push(look_ahead(document, &ring, settings, from, until)),
            Err(found) => problems.extend(found),
        }
    }
    problems.sort();
    for problem in &problems {
        complain(format_args!("{problem}"));
    }
    let none = if rings.is_empty() {
        none_found(paths, &found)
    } else {
        String::new()
    };
    // A ring that is refused is a ring all the same.
    match (
        problems.len(),
        rings.is_empty() && manifests.documents.is_empty(),
    ) {
        (0, true) => Err(none),
        (0, false) => Ok(rings),
        (1, false) => Err("nothing is planned until the problem above is mended".into()),
        (n, false) => Err(format!(
            "nothing is planned until the {n} problems above are mended"
        )),
        // Perhaps the wrong directory was named, and nobody wants its files to be mended.
        (1, true) => Err(format!(
            "nothing is planned for the problem above, and {none}"
        )),
        (n, true) => Err(format!(
            "nothing is planned for the {n} problems above, and {none}"
        )),
    }
}

/// That there is no ring, and where one was looked for.
fn none_found(paths: &[PathBuf], found: &Found) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    let looked = match found.files.len() {
        0 if !found.problems.is_empty() => "none could be read".to_owned(),
        0 => "no file there is called *.yaml, *.yml or *.json".to_owned(),
        1 => "1 file was read".to_owned(),
        n => format!("{n} files were read"),
    };
    format!(
        "no SigningKey that could be planned is in {} ({looked}): give files or directories with manifests of that kind, such as examples/rotation",
        paths.join(", ")
    )
}

/// The files of all paths, each once.
fn find(paths: &[PathBuf]) -> Found {
    let (mut all, mut seen) = (Found::default(), HashSet::new());
    for path in paths {
        let found = manifests::find(path, None);
        all.problems.extend(found.problems);
        let new = found.files.into_iter().filter(|(path, _)| {
            let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            seen.insert(real)
        });
        all.files.extend(new);
    }
    all
}

/// The ring as the API server would take it, with its defaults.
async fn judge(
    document: &Document,
    kinds: &Kinds,
    objects: &Objects,
) -> Result<SigningKey, Vec<Problem>> {
    let id = &document.id;
    objects
        .namespace(kinds.namespace(), &id.namespace)
        .await
        .map_err(|_| {
            let advice =
                "No namespace can have this name: write lower-case letters, digits and dashes.";
            vec![document.problem("metadata.namespace", advice)]
        })?;
    objects
        .apply(document, &document.file)
        .await
        .map_err(|refused| refused.problems)?;
    let unreadable = |e: &dyn std::fmt::Display| vec![document.problem("", e)];
    let object = objects.get(id).await.map_err(|e| unreadable(&e))?;
    serde_json::from_value(object.unwrap_or_default()).map_err(|e| unreadable(&e))
}

fn look_ahead(
    document: &Document,
    ring: &SigningKey,
    settings: &Settings,
    from: Timestamp,
    until: Timestamp,
) -> Ring {
    let spec = &ring.spec;
    let mut policy = Policy {
        // It follows from a UID, which a manifest does not have.
        jitter: 0,
        ..rotation_policy(ring, settings)
    };
    if spec.private_key.is_some() {
        policy.source = Source::Inject("brought".into());
    }
    let forbidden = algorithm_violation(ring, settings).is_some();
    if forbidden {
        policy.source = Source::Hold;
    }
    let timetable = timetable(&policy, from, until);
    let mut notes: Vec<String> = notes::misplaced(document, settings).into_iter().collect();
    notes.extend(policy_violation(ring, settings));
    if forbidden {
        notes.push("No key is made.".into());
    }
    notes.extend(notes::raised(ring, settings, &policy));
    if policy.interval.is_some() {
        notes.push("On a cluster it rotates up to a tenth of its interval (a day at most) earlier, by a time that follows from its UID.".into());
    }
    if spec.private_key.is_some() {
        notes.push("Its keys are brought by privateKey: new content of that Secret is a rotation, at a time that nobody knows beforehand.".into());
    }
    if spec.sign_with.is_some() || !spec.invalidated.is_empty() {
        notes.push("signWith and invalidated name keys that exist; those of this timetable do not yet, so that the two are not obeyed here.".into());
    }
    if let (true, Some(to)) = (timetable.too_late, policy.window.to) {
        notes.push(format!("validTo is {to}, which had passed by then: no key is made. Set it to a time ahead, or give an earlier --from."));
    }
    if let Some(since) = timetable.crowded {
        notes.push(format!("From {since} on {MOST_PUBLISHED} keys are published, and rotations wait until one of them goes: lengthen interval, or shorten gracePeriod."));
    }
    if let Some(cut) = timetable.cut {
        notes.push(format!("The timetable ends at {cut}, after {MOST_KEYS} keys: give a shorter --for, or a later --from."));
    }
    Ring {
        namespace: document.id.namespace.clone(),
        name: ring.name_any(),
        shown: String::new(),
        file: document.file.clone(),
        audience: spec.audience,
        priority: spec.priority,
        policy,
        timetable,
        notes,
    }
}

fn period(duration: SignedDuration) -> Period {
    Period::from_secs(duration.as_secs())
}

impl Ring {
    /// How long a retired key of it verifies.
    fn grace(&self) -> SignedDuration {
        let safe = self.policy.max_ttl.saturating_add(self.policy.margin);
        self.policy.grace.max(safe)
    }
}

impl Plan {
    /// Everything that happens, with the ring that it happens to, in the order of time.
    fn rows(&self) -> Vec<(&Ring, &crate::domain::rotation::timetable::Row)> {
        let of = |ring| {
            let ring: &Ring = ring;
            ring.timetable.rows.iter().map(move |row| (ring, row))
        };
        let mut rows: Vec<_> = self.rings.iter().flat_map(of).collect();
        rows.sort_by_key(|(_, row)| row.at);
        rows
    }
}
