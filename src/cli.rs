//! The command line: thin. Each command turns its flags into what the library takes.

mod args;
pub mod audit;
mod claim;
mod dev;
mod plan;
pub mod process;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::args::{OperatorArgs, RunArgs, ServeArgs};
use self::process::Role;
use crate::api::v1alpha1::{all_crds, to_yaml};

/// Identity as Kubernetes resources: signing keys that rotate without breaking a verifier, client
/// credentials, a JWKS, and an OAuth 2.0 token endpoint.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, about, long_about = None, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log, to stderr: error, warn, info, debug or trace, also for a part of the program
    /// (such as `info,chancery::serve=debug`). Where it is not given: info, and warn for dev.
    #[arg(
        long,
        global = true,
        env = "CHANCERY_LOG",
        value_name = "FILTER",
        help_heading = "The log"
    )]
    log: Option<String>,

    /// How to log.
    #[arg(
        long,
        global = true,
        env = "CHANCERY_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "The log"
    )]
    log_format: LogFormat,

    /// Where a line is written for each token that is issued, refused or revoked, as JSON: a file, or
    /// - for stdout. Nowhere if it is not given. A file that has grown to 100 MiB is renamed to FILE.1.
    #[arg(
        long,
        global = true,
        env = "CHANCERY_AUDIT_LOG",
        value_name = "FILE",
        help_heading = "The log"
    )]
    audit_log: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Try it on this machine, with no cluster:
  chancery dev examples/quickstart
  chancery plan examples/rotation

On a cluster:
  chancery crds | kubectl apply -f -
  chancery run --issuer http://127.0.0.1:8080";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// JSON, an object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manifests in, tokens out, on this machine, with no cluster: for trials and development.
    Dev(dev::DevArgs),
    /// Operator and server in one process, against a cluster: for trials.
    Run(RunArgs),
    /// The operator alone: follows the custom resources, and makes keys and credentials.
    Operator(OperatorArgs),
    /// The server alone: issues tokens and serves the JWKS. Several can run beside each other.
    Serve(ServeArgs),
    /// When each signing key of some manifests will be made, sign, retire and go.
    Plan(plan::PlanArgs),
    /// Claims a client secret that is delivered once: as the kubectl plugin, kubectl chancery claim.
    Claim(claim::ClaimArgs),
    /// Prints the custom resource definitions: chancery crds | kubectl apply -f -
    Crds,
}

/// What `kubectl chancery` does: the commands of Chancery that are for people with a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-chancery",
    bin_name = "kubectl chancery",
    version,
    about = "Chancery's commands for kubectl",
    long_about = None
)]
struct Plugin {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Claims a client secret that is delivered once: makes it, and shows it to you alone.
    Claim(claim::ClaimArgs),
}

impl From<Plugin> for Cli {
    fn from(plugin: Plugin) -> Self {
        let PluginCommand::Claim(claim) = plugin.command;
        Self {
            command: Command::Claim(claim),
            log: None,
            log_format: LogFormat::Text,
            audit_log: None,
        }
    }
}

/// Whether kubectl runs this program: it finds its plugins by their name.
fn called_as_plugin() -> bool {
    let called = std::env::args_os().next();
    let called = called.as_deref().map(std::path::Path::new);
    let name = called.and_then(|path| path.file_name());
    name.is_some_and(|name| name == "kubectl-chancery")
}

/// Runs the command line; the exit code is 1 where something failed, after a sentence on stderr.
pub fn main() -> ExitCode {
    let cli = if called_as_plugin() {
        Plugin::parse().into()
    } else {
        Cli::parse()
    };
    // Where dev tells its story, the log has only what is wrong.
    let usual = match &cli.command {
        Command::Dev(_) | Command::Plan(_) => "warn",
        // It tells itself what goes wrong.
        Command::Claim(_) => "off",
        // The watches say in a line what kube says in many.
        _ => "info,kube_client=off,kube_runtime=off",
    };
    let done = match log_filter(cli.log.as_deref().unwrap_or(usual)) {
        Ok(filter) => {
            let lines = cli.audit_log.as_deref().map(audit::Lines::to);
            lines.transpose().and_then(|lines| {
                init_log(filter, cli.log_format, lines);
                run(cli.command)
            })
        }
        Err(sentence) => Err(sentence),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("chancery: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Dev(dev) => on_runtime(dev::run(dev)),
        Command::Plan(plan) => on_runtime(plan::run(plan)),
        Command::Claim(claim) => on_runtime(claim::run(claim)),
        Command::Crds => print_crds(),
        Command::Run(RunArgs {
            cluster,
            listen,
            admin,
            settings,
        }) => {
            let listen = Some(listen);
            on_runtime(args::on_cluster(
                Role::Both,
                cluster,
                listen,
                admin,
                settings,
            ))
        }
        Command::Operator(OperatorArgs {
            cluster,
            admin,
            settings,
        }) => on_runtime(args::on_cluster(
            Role::Operator,
            cluster,
            None,
            admin,
            settings,
        )),
        Command::Serve(ServeArgs {
            cluster,
            listen,
            admin,
            settings,
        }) => {
            let listen = Some(listen);
            on_runtime(args::on_cluster(
                Role::Server,
                cluster,
                listen,
                admin,
                settings,
            ))
        }
    }
}

fn print_crds() -> Result<(), String> {
    let yaml = to_yaml(&all_crds())?;
    print(&yaml)
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no error; a full disk is one.
fn print(text: &str) -> Result<(), String> {
    use std::io::{ErrorKind, Write as _};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("stdout could not be written: {error}."))
        }
        _ => Ok(()),
    }
}

fn on_runtime(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the async runtime could not start: {e}"))?
        .block_on(work)
}

/// The filter that a text says. A word that is no level would be taken for a part of the program,
/// and all else would be silent: a slip such as `inof` must not cost the log of an incident.
fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let refused = |what: String| {
        format!(
            "--log is {text:?}, {what}: use error, warn, info, debug or trace, also for a part of \
             the program, such as info,chancery::serve=debug"
        )
    };
    let slip = text.split(',').find(|part| {
        let other = part.contains(['=', '[', ']', '{', '}']);
        !part.is_empty() && !other && part.parse::<LevelFilter>().is_err()
    });
    if let Some(part) = slip {
        return Err(refused(format!("where {part:?} is no level")));
    }
    EnvFilter::try_new(text).map_err(|e| refused(format!("which is no filter ({e})")))
}

fn init_log(filter: EnvFilter, format: LogFormat, audit: Option<audit::Lines>) {
    use std::io::IsTerminal as _;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    // What is for the audit log stands there alone.
    let no_audit = filter_fn(|metadata| metadata.target() != crate::serve::audit::TARGET);
    let audit = audit.map(|lines| audit::layer(move || lines.clone()));
    tracing_subscriber::registry()
        .with(log.with_filter(filter.and(no_audit)))
        .with(audit)
        .init();
}

/// Completes when the process is asked to end: SIGTERM, or Ctrl-C. Who asks once more is tired of
/// waiting: then the process ends at once, with what shells expect of that signal.
pub async fn asked_to_end() {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    either(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        let same = tokio::time::sleep(SAME_SIGNAL);
        tokio::pin!(same);
        loop {
            tokio::select! {
                () = &mut same => break,
                _ = either(&mut terminate, &mut interrupt) => {}
            }
        }
        let number = either(&mut terminate, &mut interrupt).await;
        eprintln!("chancery: ended at once, as it was asked to a second time");
        std::process::exit(128 + number);
    });
}

/// What signals twice at the same time means it once: `timeout` does so, to the process and to its
/// group.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// The number of the signal that comes first.
async fn either(terminate: &mut Option<Signal>, interrupt: &mut Option<Signal>) -> i32 {
    tokio::select! {
        () = next(terminate) => SignalKind::terminate().as_raw_value(),
        () = next(interrupt) => SignalKind::interrupt().as_raw_value(),
    }
}

async fn next(signals: &mut Option<Signal>) {
    let got = match signals {
        Some(signals) => signals.recv().await,
        None => None,
    };
    if got.is_none() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The long help of a subcommand.
    fn help(name: &str) -> String {
        let mut cli = <Cli as clap::CommandFactory>::command();
        cli.build();
        let command = cli.find_subcommand_mut(name).expect("a subcommand");
        command.render_long_help().to_string()
    }

    #[test]
    fn the_help_tells_the_defaults_and_ends_with_the_log_and_an_example() {
        let settings = crate::domain::settings::Settings::default();
        let defaults = [
            ("--environment", settings.environment),
            ("--namespace", settings.operator_namespace),
            ("--jwks-max-age", settings.jwks.max_age.to_string()),
            (
                "--default-token-ttl",
                settings.tokens.default_ttl.to_string(),
            ),
            ("--max-token-ttl", settings.tokens.max_ttl.to_string()),
            ("--clock-leeway", settings.tokens.clock_leeway.to_string()),
            (
                "--max-staleness",
                settings.serving.max_staleness.to_string(),
            ),
        ];
        for name in ["run", "operator", "serve", "dev", "plan"] {
            let help = help(name);
            let mut last = 0;
            for (flag, default) in &defaults {
                let at = help.find(&format!("      {flag} <")).expect(flag);
                assert!(at > last, "{name}: {flag} comes too early");
                last = at;
                let told = &help[at..];
                let end = told[8..].find("      --").map_or(told.len(), |end| end + 8);
                // As clap may wrap it.
                let told = told[..end].split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(
                    told.contains(&format!("[default: {default}]")),
                    "{name}: {told}"
                );
            }
            let log = help.find("      --log <").expect("--log");
            let example = help
                .find(&format!("\n  chancery {name} "))
                .expect("an example");
            assert!(last < log && log < example, "{name}:\n{help}");
        }
    }

    #[test]
    fn a_log_filter_that_is_none_is_told_of() {
        for sound in [
            "",
            "info",
            "WARN",
            "off",
            "info,chancery::serve=debug",
            "warn,kube=trace",
            "chancery[span{field=1}]=debug",
        ] {
            assert!(log_filter(sound).is_ok(), "{sound}");
        }
        for (text, told) in [
            (
                "inof",
                "--log is \"inof\", where \"inof\" is no level: use error, ",
            ),
            ("info,loud", "\"loud\" is no level"),
            ("chancery=loud", "which is no filter"),
            ("a=b=c", "which is no filter"),
        ] {
            let sentence = log_filter(text).err().unwrap_or_default();
            assert!(sentence.contains(told), "{text}: {sentence:?}");
        }
    }
}
