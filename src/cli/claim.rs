//! `kubectl chancery claim`: a client secret that is made for whoever asks for it, and shown once.
//!
//! The key that it is sealed to is made here, and dies with this process. So a claim that nobody waits for
//! any more is taken back, and one that was granted in that moment is still shown.

mod calls;
mod judge;
mod print;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use self::calls::Failed;
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

    /// How long to wait for the operator, and for an API server that does not answer; then the claim is taken
    /// back.
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
    let claim = Claim::new(client, &namespace, &args.name);
    let claimed = claim.made(args.timeout, super::asked_to_end()).await;
    match claimed {
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

/// What is known of the claim's annotation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Nothing was written.
    Never,
    /// It was, and whether the API server has done it is not known.
    InDoubt,
    /// The API server has answered.
    Answered,
}

struct Claim {
    users: Api<TechnicalUser>,
    whose: Whose,
    /// Nothing but this opens what is sealed for this claim.
    identity: Identity,
    sent: Mutex<Sent>,
}

impl Claim {
    fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self {
            users: Api::namespaced(client, namespace),
            whose: Whose {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            identity: Identity::generate(),
            sent: Mutex::new(Sent::Never),
        }
    }

    fn own(&self) -> String {
        self.identity.recipient().to_string()
    }

    fn sent(&self) -> Sent {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_sent(&self, sent: Sent) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }

    /// The client secret, or why there is none; then the claim does not stand any more, or the sentence says
    /// what to do about it.
    async fn made(
        &self,
        timeout: Period,
        asked_to_end: impl Future<Output = ()>,
    ) -> Result<Credential, String> {
        let limit = Duration::try_from(timeout.as_duration()).unwrap_or(Duration::MAX);
        let ended = tokio::select! {
            done = tokio::time::timeout(limit, self.claimed()) => match done {
                Ok(Ok(credential)) => return Ok(credential),
                Ok(Err(sentence)) => Ended::Refused(sentence),
                Err(_) => Ended::TooLate(timeout),
            },
            () = asked_to_end => Ended::Interrupted,
        };
        let why = match &ended {
            Ended::Refused(sentence) => sentence.clone(),
            Ended::TooLate(limit) => format!("the operator made no client secret within {limit}"),
            Ended::Interrupted => "ended before the operator had made a client secret".to_owned(),
        };
        if self.sent() == Sent::Never {
            return Err(why);
        }
        if let Ended::Interrupted = ended {
            // Whoever has no patience asks a second time, and then nothing more is said.
            eprintln!(
                "Taking the claim back, which may take {} s. If that is cut short: {}.",
                (SETTLES + AFTERWARDS).as_secs(),
                self.remedy()
            );
        }
        let trouble = Mutex::new("it was looked at, and no client secret came of it".to_owned());
        let taken_back = self.take_back(&why, matches!(ended, Ended::Refused(_)), &trouble);
        if let Ok(done) = tokio::time::timeout(SETTLES + AFTERWARDS, taken_back).await {
            return done;
        }
        let trouble = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
        Err(self.stands(&why, &trouble))
    }

    async fn claimed(&self) -> Result<Credential, String> {
        self.place().await?;
        let mut doubtful: Option<Instant> = None;
        loop {
            let user = match self.get().await {
                Ok(user) => user,
                Err(failed) => {
                    failed.passes().await?;
                    continue;
                }
            };
            match progress(&user, &self.own(), &self.whose) {
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
            let user = match self.get().await {
                Ok(user) => user,
                // Nothing stands: whoever called tries again.
                Err(failed) if self.sent() == Sent::Never => return Err(failed.sentence()),
                Err(failed) => {
                    failed.passes().await?;
                    continue;
                }
            };
            if user.claim() == Some(&self.own()) {
                // Only the answer was lost.
                self.set_sent(Sent::Answered);
                return Ok(());
            }
            may_claim(&user, &self.own(), &self.whose)?;
            let claim = json!(user.claim_for(&self.own()));
            match self.annotate(&user, &claim).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failed) => {
                    failed.passes().await?;
                }
            }
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
    /// what came of it. `trouble` is told what goes wrong.
    async fn take_back(
        &self,
        why: &str,
        refused: bool,
        trouble: &Mutex<String>,
    ) -> Result<Credential, String> {
        let (began, mut taken_back) = (Instant::now(), None::<Instant>);
        loop {
            let user = match self.get().await {
                Ok(user) => user,
                Err(Failed::Final(gone)) if gone == why => return Err(gone),
                Err(Failed::Final(gone)) => return Err(format!("{why}. Then {gone}")),
                Err(failed) => {
                    self.later(failed, trouble).await?;
                    continue;
                }
            };
            if let Progress::Granted(granted) = progress(&user, &self.own(), &self.whose) {
                return self.open(granted);
            }
            let placed = user.claim() == Some(&self.own());
            let handled = judge::is_handled(&user, &self.own());
            // One that nobody has answered may still come.
            let in_doubt = self.sent() == Sent::InDoubt;
            let since = taken_back.or(in_doubt.then_some(began));
            if placed && !handled {
                match self.annotate(&user, &Value::Null).await {
                    Ok(true) => taken_back = Some(Instant::now()),
                    Ok(false) => {}
                    Err(Failed::Final(sentence)) => return Err(self.stands(why, &sentence)),
                    Err(failed) => self.later(failed, trouble).await?,
                }
                continue;
            } else if !placed && since.is_none_or(|at| at.elapsed() > AFTERWARDS) {
                return Err(match (taken_back, judge::trouble(&user)) {
                    (None, _) if in_doubt => self.stands(why, "it may still be on its way"),
                    (None, _) => why.to_owned(),
                    (Some(_), None) => format!("{why}: the claim was taken back"),
                    (Some(_), Some(told)) => {
                        format!("{why}: the claim was taken back. The operator says: {told}")
                    }
                });
            } else if placed && refused {
                return Err(why.to_owned());
            }
            sleep(POLL).await;
        }
    }

    /// Lets another try follow, and remembers why.
    async fn later(&self, failed: Failed, trouble: &Mutex<String>) -> Result<(), String> {
        let sentence = failed.passes().await?;
        *trouble.lock().unwrap_or_else(PoisonError::into_inner) = sentence;
        Ok(())
    }

    /// That the claim stands, while nobody has its key.
    fn stands(&self, why: &str, because: &str) -> String {
        format!(
            "{why}; and the claim could not be taken back ({because}). It may stand in {}, and its key is lost: {}",
            self.whose,
            self.remedy()
        )
    }

    /// What to do about a claim that may stand.
    fn remedy(&self) -> String {
        let Whose { namespace, name } = &self.whose;
        format!(
            "take it away with kubectl annotate technicaluser {name} -n {namespace} {CLAIM_ANNOTATION}-, and if a client secret was made for it, rotate, and claim again"
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

#[cfg(test)]
mod tests;
