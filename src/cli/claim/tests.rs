//! A claim against an API server that fails, is slow to answer, or is gone.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;

use super::*;
use crate::crypto::age::{Recipient, seal};

const SECRET: &str = "sk-the-client-secret";

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// Nobody is there.
    Down,
    /// It is done, and the answer does not come.
    AnswerLost,
    /// It is not done, and no answer comes.
    Hangs,
    /// As of an API server that is just starting.
    Starting(u16),
}

/// An API server with one technical user, and an operator that may be there.
struct World {
    user: Value,
    calls: usize,
    fate: fn(usize) -> Fate,
    operator: bool,
}

impl World {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        if method == Method::PATCH {
            let patch: Value = serde_json::from_slice(body).expect("JSON");
            let (of, now) = (&patch["metadata"], &self.user["metadata"]);
            if of["resourceVersion"] != now["resourceVersion"] {
                return (
                    409,
                    json!({"kind": "Status", "code": 409, "status": "Failure"}),
                );
            }
            let claim = of["annotations"][CLAIM_ANNOTATION].clone();
            let version = self.calls.to_string();
            self.user["metadata"]["resourceVersion"] = json!(version);
            let annotations = &mut self.user["metadata"]["annotations"];
            *annotations = match &claim {
                Value::Null => json!({}),
                claim => json!({CLAIM_ANNOTATION: claim}),
            };
            if let Some(claim) = claim.as_str().filter(|_| self.operator) {
                let recipient = claim
                    .strip_suffix("@uid-of-till")
                    .expect("of this resource");
                let sealed = Recipient::parse(recipient).expect("a recipient");
                let sealed = seal(&sealed, SECRET.as_bytes()).expect("sealed");
                self.user["status"] = json!({
                    "observedGeneration": 1, "lastHandledClaim": recipient,
                    "sealed": {
                        "credentialId": "1", "recipient": recipient, "by": "Claim",
                        "sealedAt": "2026-11-27T08:00:00Z", "ciphertext": sealed,
                    },
                });
            }
        }
        (200, self.user.clone())
    }
}

struct Scene {
    world: Arc<Mutex<World>>,
    claim: Claim,
}

impl Scene {
    fn new(operator: bool, fate: fn(usize) -> Fate) -> Self {
        let user = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {
                "name": "till", "namespace": "acme", "uid": "uid-of-till", "generation": 1,
                "resourceVersion": "0",
            },
            "spec": {"audiences": ["a"], "credential": {"secret": {"delivery": "OneTime"}}},
        });
        let world = Arc::new(Mutex::new(World {
            user,
            calls: 0,
            fate,
            operator,
        }));
        let served = world.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let world = served.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let (fate, (code, answer)) = {
                    let mut world = world.lock().expect("no panic");
                    let fate = (world.fate)(world.calls);
                    world.calls += 1;
                    let answer = match fate {
                        Fate::Done | Fate::AnswerLost => world.answer(&parts.method, &body),
                        Fate::Starting(code) => (
                            code,
                            json!({"kind": "Status", "code": code, "status": "Failure"}),
                        ),
                        Fate::Down | Fate::Hangs => (0, Value::Null),
                    };
                    (fate, answer)
                };
                match fate {
                    Fate::Down | Fate::AnswerLost => Err("connection refused".into()),
                    Fate::Hangs => std::future::pending().await,
                    Fate::Done | Fate::Starting(_) => {
                        let mut response =
                            Response::new(Body::from(answer.to_string().into_bytes()));
                        *response.status_mut() = StatusCode::from_u16(code)?;
                        Ok::<_, tower::BoxError>(response)
                    }
                }
            }
        });
        let client = kube::Client::new(service, "acme");
        Self {
            world,
            claim: Claim::new(client, "acme", "till"),
        }
    }

    async fn made(&self, asked_to_end: impl Future<Output = ()>) -> Result<String, String> {
        let minute = "1m".parse().expect("a period");
        let made = self.claim.made(minute, asked_to_end).await;
        made.map(|credential| credential.client_secret.to_string())
    }

    fn stands(&self) -> bool {
        let world = self.world.lock().expect("no panic");
        world.user["metadata"]["annotations"][CLAIM_ANNOTATION].is_string()
    }
}

const HOW: &str = "kubectl annotate technicaluser till -n acme chancery.dev/claim-";

#[tokio::test(start_paused = true)]
async fn one_call_that_fails_is_tried_again() {
    let fates: [fn(usize) -> Fate; 10] = [
        |n| if n == 1 { Fate::Down } else { Fate::Done },
        |n| if n == 1 { Fate::AnswerLost } else { Fate::Done },
        |n| if n == 1 { Fate::Hangs } else { Fate::Done },
        |n| {
            if n == 1 {
                Fate::Starting(503)
            } else {
                Fate::Done
            }
        },
        |n| if n == 2 { Fate::Down } else { Fate::Done },
        |n| if n == 2 { Fate::Hangs } else { Fate::Done },
        // Before it knows of roles, and of kinds.
        |n| {
            if n == 2 {
                Fate::Starting(403)
            } else {
                Fate::Done
            }
        },
        |n| {
            if n == 2 {
                Fate::Starting(404)
            } else {
                Fate::Done
            }
        },
        |n| {
            if n == 2 {
                Fate::Starting(429)
            } else {
                Fate::Done
            }
        },
        |n| {
            if (2..20).contains(&n) {
                Fate::Down
            } else {
                Fate::Done
            }
        },
    ];
    for (which, fate) in fates.into_iter().enumerate() {
        let scene = Scene::new(true, fate);
        let made = scene.made(std::future::pending()).await;
        assert_eq!(made.as_deref(), Ok(SECRET), "{which}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_written_nothing_is_said_to_stand() {
    for fate in [
        (|_| Fate::Down) as fn(usize) -> Fate,
        |_| Fate::Hangs,
        |_| Fate::Starting(403),
        |n| {
            if n == 1 {
                Fate::Starting(403)
            } else {
                Fate::Done
            }
        },
    ] {
        let scene = Scene::new(true, fate);
        let told = scene.made(std::future::pending()).await.expect_err("down");
        assert!(!told.contains("may stand"), "{told}");
        assert!(told.contains("could not be"), "{told}");
        assert!(!scene.stands());
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_taken_back_is_told() {
    for fate in [
        (|n| if n > 1 { Fate::Down } else { Fate::Done }) as fn(usize) -> Fate,
        |n| if n > 1 { Fate::Hangs } else { Fate::Done },
        |n| {
            if n > 1 {
                Fate::Starting(403)
            } else {
                Fate::Done
            }
        },
        // The claim itself had no answer.
        |n| match n {
            0 => Fate::Done,
            1 => Fate::AnswerLost,
            _ => Fate::Down,
        },
    ] {
        for interrupted in [false, true] {
            let scene = Scene::new(false, fate);
            let ended = async {
                if !interrupted {
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_secs(1)).await;
            };
            let told = scene.made(ended).await.expect_err("nothing is made");
            assert!(scene.stands());
            assert!(
                told.contains("It may stand in TechnicalUser acme/till"),
                "{told}"
            );
            assert!(told.contains(HOW), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_back_from_one_that_is_there_again() {
    let scene = Scene::new(false, |n| match n {
        // Half a minute of calls, and some of those that take it back.
        2..150 | 238..248 => Fate::Down,
        _ => Fate::Done,
    });
    let told = scene
        .made(std::future::pending())
        .await
        .expect_err("too late");
    assert!(
        told.ends_with("within 1m: the claim was taken back"),
        "{told}"
    );
    assert!(!scene.stands());
}
