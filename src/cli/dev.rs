//! `chancery dev`: manifests of a directory, an API server in memory, operator and server in one
//! process, on this machine alone.

mod curl;
pub(super) mod kinds;
pub(super) mod manifests;
pub(super) mod objects;
pub(super) mod report;
mod scalar;
mod sync;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use self::curl::CurlFiles;
use self::kinds::Kinds;
use self::manifests::Found;
use self::objects::Objects;
use self::report::{Report, complain, say};
use self::sync::{Outcome, Pass, Sync};
use super::args::{self, AdminArgs, SettingsArgs};
use super::process::{Listen, Process, Role, not_bound};
use crate::api::v1alpha1::all_crds;
use crate::clock;
use crate::embedded::{ApiServer, Ids, Options};
use crate::serve::listener;
use crate::stores::Change;

/// `chancery dev`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct DevArgs {
    /// The directory with the manifests (*.yaml, *.yml, *.json, also in directories below), or one
    /// such file.
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Where to serve tokens and the JWKS: a loopback address. Port 0 takes any that is free.
    #[arg(
        long,
        env = "CHANCERY_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS",
        help_heading = "Where to listen"
    )]
    listen: std::net::SocketAddr,

    #[command(flatten)]
    admin: AdminArgs,

    /// Where keys, secrets and all objects are kept from one start to the next, readable by you
    /// alone.
    #[arg(long, default_value = ".chancery", value_name = "DIR")]
    state: PathBuf,

    #[command(flatten)]
    settings: SettingsArgs,
}

const HELP: &str = "\
Try it:
  chancery dev examples/quickstart

It prints a curl line for each technical user, which gets a token. Then edit the manifests: what
you save is applied at once, and what is wrong with it is told with file and line. Ctrl-C ends it;
the next start has the same keys and secrets, until you delete .chancery.

On a free port, with a state of its own:
  chancery dev my-manifests --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --state /tmp/my-state";

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(150);
/// How long files that change all the time are waited for.
const RESTLESS: Duration = Duration::from_secs(2);
/// After how long to try again what may work by itself.
const AGAIN: Duration = Duration::from_secs(1);
/// Longer than the server takes until it knows of what the operator has written
/// (`feed::GATHER`), so that what is printed holds.
const GATHER: Duration = Duration::from_millis(25);

/// Runs until the process is asked to end.
pub async fn run(dev: DevArgs) -> Result<(), String> {
    let DevArgs {
        dir,
        listen,
        admin,
        state,
        settings,
    } = dev;
    let mut settings = settings.load()?;
    let shown = dir.display();
    std::fs::metadata(&dir).map_err(|e| {
        format!("{shown} can not be read: {e}. Give a directory with manifests, or one file")
    })?;
    if !listener::is_loopback(listen) {
        return Err(format!(
            "--listen {listen} is reachable from other machines, and dev speaks plain HTTP alone: give a \
             loopback address, such as 127.0.0.1:8080"
        ));
    }
    let bound = TcpListener::bind(listen);
    let bound = bound.await.map_err(|e| not_bound("--listen", listen, &e))?;
    let address = bound.local_addr().map_err(|e| e.to_string())?;
    if settings.issuer.is_empty() {
        settings.issuer = format!("http://{address}");
    }
    let settings = args::judged(settings)?;

    // Before anything is put there.
    let there = std::fs::canonicalize(&state).ok();
    if there.is_some() && there == std::fs::canonicalize(&dir).ok() {
        return Err(format!(
            "--state {shown} is the directory of the manifests: choose another for the state"
        ));
    }
    let crds = all_crds();
    let kinds = Kinds::new(&crds);
    let api = ApiServer::open(Options {
        crds,
        state_dir: Some(state.clone()),
        clock: clock::system(),
        ids: Ids::Random,
    })
    .map_err(|e| e.to_string())?;
    let real_state = std::fs::canonicalize(&state).ok();
    let client = api.client("default");
    let process = Process {
        role: Role::Both,
        elects: false,
        settings: settings.clone(),
        client: client.clone(),
        clock: clock::system(),
        listen: Some(Listen {
            address,
            bound: Some(bound),
            tls: None,
            behind_proxy: false,
            drain_delay: Duration::ZERO,
        }),
        admin_listen: admin.admin_listen,
    };
    let mut started = process.start().await?;
    let changes = started.take_changes();

    let local = |path: &str| format!("http://{address}{}{path}", settings.issuer_path());
    say(format_args!("issuer     {}", settings.issuer));
    say(format_args!(
        "JWKS       {}",
        local("/.well-known/jwks.json")
    ));
    say(format_args!(
        "health     http://{}/readyz",
        started.admin_address
    ));
    say(format_args!("manifests  {shown} (edits are followed)"));
    say(format_args!(
        "state      {} (keys and secrets, readable by you alone)",
        state.display()
    ));
    let story = Story {
        sync: Sync::new(
            dir,
            real_state,
            kinds,
            Objects::new(client),
            settings.operator_namespace.clone(),
        )
        .await?,
        report: Report::new(
            started.stores.clone(),
            CurlFiles::new(&state),
            local("/oauth/token"),
            settings.environment.clone(),
        ),
    };
    let stores = started.stores.clone();
    let story = tokio::spawn(async move { story.tell(changes, stores).await });
    let ended = started.run(super::asked_to_end()).await;
    story.abort();
    // What it was about to say is said of a server that still runs: once the runtime goes down,
    // it would tell of errors that are none.
    let _ = story.await;
    ended?;
    say(format_args!(
        "Ended. The keys and secrets stay in {} for the next start.",
        Path::new(&state).display()
    ));
    Ok(())
}

/// What goes on beside operator and server.
struct Story {
    sync: Sync,
    report: Report,
}

impl Story {
    async fn tell(
        mut self,
        mut changes: mpsc::UnboundedReceiver<Change>,
        stores: crate::stores::Stores,
    ) {
        let mut last = self.sync.look();
        let outcome = self.pass(&last, Pass::First).await;
        Self::summary(&last, &outcome);
        // What was half written then has been read again by the time this is over.
        let mut pending = Some(Instant::now());
        stores.synced().await;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.tick().await;
        let mut again = outcome.again.then(|| Instant::now() + AGAIN);
        loop {
            tokio::select! {
                change = changes.recv() => {
                    if change.is_none() {
                        return;
                    }
                    sleep(GATHER).await;
                    while changes.try_recv().is_ok() {}
                    self.report.update();
                }
                _ = poll.tick() => {
                    let found = self.sync.look();
                    let now = Instant::now();
                    if found != last {
                        pending = pending.or(Some(now));
                        last = found;
                        // It may still be being written: once it rests, it is read.
                        if pending.is_some_and(|since| now - since < RESTLESS) {
                            continue;
                        }
                    }
                    if pending.is_some() || again.is_some_and(|at| now >= at) {
                        pending = None;
                        let outcome = self.pass(&last, Pass::Settled).await;
                        again = outcome.again.then(|| Instant::now() + AGAIN);
                    }
                    self.report.update();
                }
            }
        }
    }

    async fn pass(&mut self, found: &Found, pass: Pass) -> Outcome {
        match self.sync.pass(found, pass).await {
            Ok(outcome) => outcome,
            Err(sentence) => {
                complain(format_args!("chancery: {sentence}"));
                Outcome {
                    again: true,
                    ..Outcome::default()
                }
            }
        }
    }

    fn summary(found: &Found, outcome: &Outcome) {
        let Outcome {
            created,
            changed,
            unchanged,
            problems,
            ..
        } = outcome;
        let files = match found.files.len() {
            0 => "No manifest is there yet: put one there, and it is applied".to_owned(),
            1 => "1 file".to_owned(),
            n => format!("{n} files"),
        };
        let refused = match problems {
            0 => String::new(),
            1 => ", 1 problem".to_owned(),
            n => format!(", {n} problems"),
        };
        if found.files.is_empty() {
            say(format_args!("{files}."));
        } else {
            say(format_args!(
                "{files}: {created} created, {changed} changed, {unchanged} unchanged{refused}."
            ));
        }
    }
}
