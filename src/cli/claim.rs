//! `kubectl chancery claim`: a client secret that is made for whoever asks for it, and shown once.
//!
//! The key that it is sealed to is made here, and dies with this process. So a claim that nobody waits for
//! any more is taken back, and one that was granted in that moment is still shown.

mod judge;
mod print;

use std::path::PathBuf;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use self::judge::{Granted, Progress, Whose, may_claim, progress};
use self::print::{Credential, Form, Sink};
use crate::api::v1alpha1::{CLAIM_ANNOTATION, TechnicalUser};
use crate::crypto::age::Identity;
use crate::domain::period::Period;

/// `kubectl chancery claim`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct ClaimArgs {
    /// The `TechnicalUser`, of which credential.secret.delivery is `OneTime`.
    #[arg(value_name = "NAME")]
    name: String,

    /// Its namespace; that of the kubeconfig's context where it is not given.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// In which form to write client id and secret.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    output: Form,

    /// Write them into this new file, readable by you alone, rather than to stdout.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,

    /// How long to wait for the operator; then the claim is taken back.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    timeout: Period,

    /// The kubeconfig file. Without it: KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE", help_heading = "The cluster")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use.
    #[arg(long, value_name = "NAME", help_heading = "The cluster")]
    context: Option<String>,
}

const HELP: &str = "\
The client secret is made for you and sealed to a key that this command holds while it runs. It is
shown once and kept nowhere: lost means rotate, and claim again.

Show it:
  kubectl chancery claim orders -n acme

Into a file that is readable by you alone, to be sourced by a shell:
  kubectl chancery claim orders -n acme -o env --output-file orders.env

Another one, once the first is lost or old; what you have works on through its grace:
  kubectl annotate technicaluser orders -n acme --overwrite chancery.dev/rotate=lost
  kubectl chancery claim orders -n acme

It needs the rights get and patch on technicalusers of that namespace.";

/// How often the resource is looked at.
const POLL: Duration = Duration::from_millis(250);
/// For how long a claim that seems lost is looked at again: what was granted is shown once servers know of
/// it, some seconds later.
const SETTLES: Duration = Duration::from_secs(6);
/// For how long a claim may still be granted after it was taken back: the operator may just be at it.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Claims, and prints what comes of it.
pub async fn run(args: ClaimArgs) -> Result<(), String> {
    // Before anything is made that could then not be written.
    let sink = Sink::open(args.output_file.clone())?;
    let (client, namespace) = connect(&args).await?;
    let claim = Claim {
        users: Api::namespaced(client, &namespace),
        whose: Whose {
            namespace,
            name: args.name.clone(),
        },
        identity: Identity::generate(),
    };
    let limit = Duration::try_from(args.timeout.as_duration()).unwrap_or(Duration::MAX);
    let ended = tokio::select! {
        done = tokio::time::timeout(limit, claim.claimed()) => match done {
            Ok(Ok(credential)) => return sink.write(&credential, args.output, &claim.whose),
            Ok(Err(sentence)) => Ended::Refused(sentence),
            Err(_) => Ended::TooLate(args.timeout),
        },
        () = super::asked_to_end() => Ended::Interrupted,
    };
    match claim.take_back(&ended).await {
        Ok(credential) => sink.write(&credential, args.output, &claim.whose),
        Err(sentence) => {
            sink.discard();
            Err(sentence)
        }
    }
}

/// Why a claim came to nothing.
enum Ended {
    /// Somebody else has it, or nobody can.
    Refused(String),
    TooLate(Period),
    Interrupted,
}

struct Claim {
    users: Api<TechnicalUser>,
    whose: Whose,
    /// Nothing but this opens what is sealed for this claim.
    identity: Identity,
}

impl Claim {
    fn own(&self) -> String {
        self.identity.recipient().to_string()
    }

    async fn claimed(&self) -> Result<Credential, String> {
        self.place().await?;
        let mut doubtful: Option<Instant> = None;
        loop {
            match progress(&self.get().await?, &self.own(), &self.whose) {
                Progress::Granted(granted) => return self.open(granted),
                Progress::Waits => doubtful = None,
                Progress::Doubtful(why) => {
                    let since = *doubtful.get_or_insert_with(Instant::now);
                    if since.elapsed() > SETTLES {
                        return Err(why);
                    }
                }
            }
            sleep(POLL).await;
        }
    }

    /// Writes the claim, if nobody has claimed before: the API server lets one of two through.
    async fn place(&self) -> Result<(), String> {
        loop {
            let user = self.get().await?;
            may_claim(&user, &self.own(), &self.whose)?;
            if self.annotate(&user, &json!(self.own())).await? {
                return Ok(());
            }
        }
    }

    /// Sets the annotation, or takes it away; not if the resource is another than was seen.
    async fn annotate(&self, seen: &TechnicalUser, value: &Value) -> Result<bool, String> {
        let patch = json!({"metadata": {
            "resourceVersion": seen.metadata.resource_version,
            "annotations": {CLAIM_ANNOTATION: value},
        }});
        let params = PatchParams {
            field_manager: Some("kubectl-chancery".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        match self.users.patch(&self.whose.name, &params, &patch).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.told("annotated", "patch", &error)),
        }
    }

    async fn get(&self) -> Result<TechnicalUser, String> {
        let user = self.users.get(&self.whose.name).await;
        user.map_err(|error| self.told("read", "get", &error))
    }

    fn told(&self, done: &str, verb: &str, error: &kube::Error) -> String {
        let Whose { namespace, .. } = &self.whose;
        let what = format!("{} could not be {done}", self.whose);
        match error {
            kube::Error::Api(status) if status.code == 404 => {
                format!(
                    "there is no {}: mend the name or the namespace (-n)",
                    self.whose
                )
            }
            kube::Error::Api(status) if status.code == 403 => format!(
                "{what}, as you may not {verb} technicalusers in {namespace}: whoever claims needs the rights get and patch on them"
            ),
            kube::Error::Api(status) => format!("{what}: {}", status.message),
            other => format!("{what}: {other}"),
        }
    }

    fn open(&self, granted: Granted) -> Result<Credential, String> {
        let opened = self.identity.open(&granted.ciphertext).ok();
        let text = opened.and_then(|text| String::from_utf8(text.to_vec()).ok());
        let client_secret = text.map(Zeroizing::new).ok_or_else(|| {
            format!(
                "what stands in status.sealed of {} does not open with the key that it names: somebody has altered it, so rotate, and claim again",
                self.whose
            )
        })?;
        Ok(Credential {
            client_id: granted.client_id,
            client_secret,
        })
    }

    /// Takes the claim back, as its key ends with this process. If it was granted in this very moment, gives
    /// what came of it.
    async fn take_back(&self, ended: &Ended) -> Result<Credential, String> {
        let why = match ended {
            Ended::Refused(sentence) => sentence.clone(),
            Ended::TooLate(limit) => format!("the operator made no client secret within {limit}"),
            Ended::Interrupted => "ended before the operator had made a client secret".to_owned(),
        };
        let mut taken_back: Option<Instant> = None;
        let deadline = Instant::now() + SETTLES + AFTERWARDS;
        loop {
            let user = match self.get().await {
                Ok(user) => user,
                Err(sentence) if matches!(ended, Ended::Refused(_)) => {
                    return Err(if sentence == why {
                        why
                    } else {
                        format!("{why}. Then {sentence}")
                    });
                }
                Err(sentence) => return Err(self.stands(&why, &sentence)),
            };
            if let Progress::Granted(granted) = progress(&user, &self.own(), &self.whose) {
                return self.open(granted);
            }
            let placed = judge::claim_of(&user) == Some(&self.own());
            if placed && !judge::is_handled(&user, &self.own()) {
                match self.annotate(&user, &Value::Null).await {
                    Ok(true) => taken_back = Some(Instant::now()),
                    Ok(false) => continue,
                    Err(sentence) => return Err(self.stands(&why, &sentence)),
                }
            } else if !placed && taken_back.is_none_or(|at| at.elapsed() > AFTERWARDS) {
                return Err(match (taken_back, judge::trouble(&user)) {
                    (None, _) => why,
                    (Some(_), None) => format!("{why}: the claim was taken back"),
                    (Some(_), Some(told)) => {
                        format!("{why}: the claim was taken back. The operator says: {told}")
                    }
                });
            } else if placed && matches!(ended, Ended::Refused(_)) {
                return Err(why);
            }
            if Instant::now() > deadline {
                return Err(self.stands(&why, "it was looked at, and no client secret came of it"));
            }
            sleep(POLL).await;
        }
    }

    /// That the claim stands, while nobody has its key.
    fn stands(&self, why: &str, because: &str) -> String {
        let Whose { namespace, name } = &self.whose;
        format!(
            "{why}; and the claim could not be taken back ({because}). It may stand in {}, and its key is lost: take it away with kubectl annotate technicaluser {name} -n {namespace} {CLAIM_ANNOTATION}-, and if a client secret was made for it, rotate, and claim again",
            self.whose
        )
    }
}

async fn connect(args: &ClaimArgs) -> Result<(kube::Client, String), String> {
    let no_cluster = |e: &dyn std::fmt::Display| {
        format!("no cluster is configured: {e}. Set KUBECONFIG, --kubeconfig or --context")
    };
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|e| format!("--kubeconfig {}: {e}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &options).await
        }
        None => kube::Config::from_kubeconfig(&options).await,
    };
    let config = config.map_err(|e| no_cluster(&e))?;
    let namespace = args.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = kube::Client::try_from(config).map_err(|e| no_cluster(&e))?;
    Ok((client, namespace))
}
