//! Flags that several commands share, and how they become settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::process::{Listen, Process, Role};
use crate::clock;
use crate::domain::period::Period;
use crate::domain::settings::Settings;

/// No load balancer takes longer to notice, and a process that seems to hang is killed.
const LONGEST_DRAIN_DELAY: u64 = 300;

/// The release's settings: a file, and flags over it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The release's settings")]
pub struct SettingsArgs {
    /// A YAML file with the release's settings; flags override it. Durations are hours, minutes and
    /// seconds, such as 90s or 1h30m; a day is 24h.
    #[arg(long, env = "CHANCERY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The release's name among several on one cluster; Subscriptions name it [default: default].
    #[arg(long, env = "CHANCERY_ENVIRONMENT", value_name = "NAME")]
    pub environment: Option<String>,

    /// The namespace of the operator, where `SigningKey`s live [default: chancery-system].
    #[arg(long, env = "CHANCERY_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How long verifiers may cache the JWKS (Cache-Control: max-age) [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub jwks_max_age: Option<Period>,

    /// How long tokens live where a `TechnicalUser` sets nothing [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub default_token_ttl: Option<Period>,

    /// The longest life that a `TechnicalUser` may set; at most 24h [default: 1h].
    #[arg(long, value_name = "DURATION")]
    pub max_token_ttl: Option<Period>,

    /// How far verifiers' clocks may be off; at most 10m. A retired key verifies for longer by this
    /// [default: 1m].
    #[arg(long, value_name = "DURATION")]
    pub clock_leeway: Option<Period>,

    /// How long a replica signs without contact with the API server, from 1s to 24h [default: 1h].
    #[arg(long, value_name = "DURATION")]
    pub max_staleness: Option<Period>,

    /// The most connections that the public port holds open, from 16 to 65536; further ones wait
    /// [default: 4096].
    #[arg(long, value_name = "NUMBER")]
    pub max_connections: Option<i32>,
}

/// How to reach the cluster, and who the tokens are from.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The cluster")]
pub struct ClusterArgs {
    /// The issuer URL: iss in every token. Tokens' verifiers find the JWKS under it. Needed, here or in
    /// the file of --config.
    #[arg(long, env = "CHANCERY_ISSUER", value_name = "URL")]
    pub issuer: Option<String>,

    /// The kubeconfig file. Without it: KUBECONFIG, ~/.kube/config, or the pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Where the server listens.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where to listen")]
pub struct ListenArgs {
    /// Where to serve tokens and the JWKS. Without TLS only a loopback address, or with
    /// --behind-proxy.
    #[arg(
        long,
        env = "CHANCERY_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// The certificate chain in PEM, read again when it changes.
    #[arg(
        long,
        env = "CHANCERY_TLS_CERT",
        requires = "tls_key",
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM.
    #[arg(
        long,
        env = "CHANCERY_TLS_KEY",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    pub tls_key: Option<PathBuf>,

    /// A proxy in front terminates TLS: plain HTTP may be served to it.
    #[arg(long, env = "CHANCERY_BEHIND_PROXY")]
    pub behind_proxy: bool,

    /// At the end, how many seconds (at most 300) to go on accepting after readiness went, so that
    /// load balancers notice first.
    #[arg(
        long,
        env = "CHANCERY_DRAIN_DELAY",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=LONGEST_DRAIN_DELAY),
        value_name = "SECONDS"
    )]
    pub drain_delay: u64,
}

/// Where health and metrics are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where to listen")]
pub struct AdminArgs {
    /// Where to serve /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "CHANCERY_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,
}

/// `chancery run`
#[derive(Debug, clap::Args)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

const RUN_HELP: &str = "\
Try it, where the CRDs are installed (chancery crds | kubectl apply -f -):
  chancery run --issuer http://127.0.0.1:8080

With rotations that can be watched, since caches and tokens live for seconds:
  chancery run --issuer http://127.0.0.1:8080 --jwks-max-age 1s --max-token-ttl 10s \\
    --default-token-ttl 5s --clock-leeway 1s --max-staleness 10s

Beside another one, on ports that are free:
  chancery run --issuer http://127.0.0.1:8080 --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";

/// `chancery operator`
#[derive(Debug, clap::Args)]
#[command(after_help = OPERATOR_HELP)]
pub struct OperatorArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

const OPERATOR_HELP: &str = "\
Try it, with a server beside it that has the same settings:
  chancery operator --config release.yaml
  chancery serve --config release.yaml --behind-proxy --admin-listen 127.0.0.1:8082

where release.yaml has at least
  issuer: https://id.example.com

Several operators elect a leader among them; the others stand by.";

/// `chancery serve`
#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

const SERVE_HELP: &str = "\
Try it, beside an operator with the same settings:
  chancery serve --issuer https://id.example.com --listen 0.0.0.0:8443 \\
    --tls-cert tls.crt --tls-key tls.key

Behind a proxy that terminates TLS:
  chancery serve --issuer https://id.example.com --listen 0.0.0.0:8080 --behind-proxy";

impl SettingsArgs {
    /// The settings of file and flags; not judged yet.
    pub fn load(&self) -> Result<Settings, String> {
        let mut settings = match &self.config {
            None => Settings::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| format!("--config {} can not be read: {e}", path.display()))?;
                serde_saphyr::from_str(&text).map_err(|e| unreadable(path, &e))?
            }
        };
        let text = |to: &mut String, from: &Option<String>| {
            if let Some(from) = from {
                to.clone_from(from);
            }
        };
        text(&mut settings.environment, &self.environment);
        text(&mut settings.operator_namespace, &self.namespace);
        for (to, from) in [
            (&mut settings.jwks.max_age, self.jwks_max_age),
            (&mut settings.tokens.default_ttl, self.default_token_ttl),
            (&mut settings.tokens.max_ttl, self.max_token_ttl),
            (&mut settings.tokens.clock_leeway, self.clock_leeway),
            (&mut settings.serving.max_staleness, self.max_staleness),
        ] {
            *to = from.unwrap_or(*to);
        }
        let connections = &mut settings.serving.max_connections;
        *connections = self.max_connections.unwrap_or(*connections);
        Ok(settings)
    }
}

/// What is wrong with a file of settings, in one line; the parser would draw a picture.
fn unreadable(path: &Path, error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let (mut what, mut place) = (error.to_string(), path.display().to_string());
    if let Some(at) = error.location() {
        let (line, column) = (at.line(), at.column());
        let end = format!(" at line {line}, column {column}");
        if let Some(rest) = what.strip_suffix(&end) {
            what.truncate(rest.len());
        }
        place = format!("{place}:{line}");
    }
    let what = what.trim_end_matches('.');
    format!(
        "--config can not be understood. {place}: {what}. Mend that line: the file is YAML with the settings that the chart's values.yaml tells of"
    )
}

/// The settings, if there is nothing wrong with them; else all that is.
pub fn judged(settings: Settings) -> Result<Arc<Settings>, String> {
    let problems = settings.problems();
    if problems.is_empty() {
        return Ok(Arc::new(settings));
    }
    Err(format!(
        "the release's settings can not be used:\n  {}",
        problems.join("\n  ")
    ))
}

/// Runs a role against a cluster until the process is asked to end.
pub async fn on_cluster(
    role: Role,
    cluster: ClusterArgs,
    listen: Option<ListenArgs>,
    admin: AdminArgs,
    settings: SettingsArgs,
) -> Result<(), String> {
    let mut settings = settings.load()?;
    if let Some(issuer) = cluster.issuer {
        settings.issuer = issuer;
    }
    if settings.issuer.is_empty() {
        return Err(
            "no issuer is set: give --issuer URL, or issuer in the file of --config".into(),
        );
    }
    let settings = judged(settings)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        issuer = %settings.issuer,
        environment = %settings.environment,
        namespace = %settings.operator_namespace,
        "Chancery starts"
    );
    let client = client(cluster.kubeconfig).await?;
    let process = Process {
        role,
        elects: true,
        settings,
        client,
        clock: clock::system(),
        listen: listen.map(|l| Listen {
            address: l.listen,
            bound: None,
            tls: l.tls_cert.zip(l.tls_key),
            behind_proxy: l.behind_proxy,
            drain_delay: Duration::from_secs(l.drain_delay),
        }),
        admin_listen: admin.admin_listen,
    };
    process.start().await?.run(super::asked_to_end()).await
}

async fn client(kubeconfig: Option<PathBuf>) -> Result<kube::Client, String> {
    let no_cluster = |e: &dyn std::fmt::Display| {
        format!(
            "no cluster is configured: {e}. Set KUBECONFIG or --kubeconfig, or try `chancery dev`, which needs none"
        )
    };
    let config = match kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(&path)
                .map_err(|e| format!("--kubeconfig {}: {e}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
                .await
                .map_err(|e| no_cluster(&e))?
        }
        None => kube::Config::infer().await.map_err(|e| no_cluster(&e))?,
    };
    kube::Client::try_from(config).map_err(|e| no_cluster(&e))
}
