//! Client secrets that a person supplies and changes all the time: that is nobody else's trouble, and what
//! status calls active goes on working.

use chancery::api::v1alpha1::{CredentialState, TechnicalUserStatus};
use chancery::crypto::hash;
use chancery::domain::rotation::MOST_SECRETS;
use chancery::domain::settings::secrets::{HIGHEST_SUPPLIED_COST, LOWEST_SUPPLIED_COST};
use chancery::objects::credentials::{self, Stored};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scene::{Scene, eventually};
use super::*;

const OTHER: &str = "globex";
const FIRST: &str = "the first of many client secrets";

struct Flapping {
    scene: Scene,
    changes: Arc<AtomicU64>,
    writers: JoinSet<()>,
}

impl Flapping {
    /// Two tenants, and a Secret of the one's; supplied secrets are hashed at that cost.
    async fn start(cost: u32) -> Self {
        let scene = Scene::with(|settings| settings.secrets.supplied_cost = cost).await;
        scene.ring("main", Value::Null).await;
        let namespaces: Api<Namespace> = Api::all(scene.admin.clone());
        let other = serde_json::from_value(json!({"metadata": {"name": OTHER}}));
        let params = PostParams::default();
        let made = namespaces.create(&params, &other.expect("valid")).await;
        made.expect("created");
        let flapping = Self {
            scene,
            changes: Arc::default(),
            writers: JoinSet::new(),
        };
        for tenant in [TENANT, OTHER] {
            let subscription = json!({
                "metadata": {"name": tenant},
                "spec": {
                    "legalEntity": {"id": tenant, "name": tenant}, "tier": "Free",
                    "allowed": {"audiences": ["*"]},
                },
            });
            flapping.make::<Subscription>(tenant, subscription).await;
        }
        let mine = json!({"metadata": {"name": "mine"}, "stringData": {"client_secret": FIRST}});
        flapping.make::<Secret>(TENANT, mine).await;
        flapping
    }

    async fn make<K>(&self, namespace: &str, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.scene.admin.clone(), namespace);
        let object = serde_json::from_value(object).expect("valid");
        let made = api.create(&PostParams::default(), &object).await;
        made.expect("created");
    }

    async fn user(&self, namespace: &str, name: &str, secret: Value) {
        let user = json!({
            "metadata": {"name": name},
            "spec": {"audiences": ["https://a.example"], "credential": {"secret": secret}},
        });
        self.make::<TechnicalUser>(namespace, user).await;
    }

    /// One that is supplied what changes.
    async fn supplied(&self, name: &str) {
        let refs = json!({"delivery": "Reference", "secretRefs": [{"name": "mine"}]});
        self.user(TENANT, name, refs).await;
    }

    async fn status(&self, name: &str) -> Option<TechnicalUserStatus> {
        let users: Api<TechnicalUser> = Api::namespaced(self.scene.admin.clone(), TENANT);
        users.get(name).await.expect("the user").status
    }

    /// The ids of those that status calls active.
    async fn active(&self, name: &str) -> Vec<String> {
        let status = self.status(name).await.unwrap_or_default();
        let all = status.credentials.into_iter();
        let active = all.filter(|c| c.state == CredentialState::Active);
        active.map(|c| c.id).collect()
    }

    async fn stored(&self, namespace: &str, name: &str) -> Option<Vec<Stored>> {
        let name = format!("{namespace}.{name}-credentials");
        let hashes = self.scene.secrets().get_opt(&name).await;
        Some(credentials::read(&hashes.expect("an answer")?))
    }

    /// Changes the Secret again and again.
    fn change_every(&mut self, pause: Duration) {
        let secrets: Api<Secret> = Api::namespaced(self.scene.admin.clone(), TENANT);
        let changes = self.changes.clone();
        self.writers.spawn(async move {
            for n in 1_u64.. {
                let next =
                    json!({"stringData": {"client_secret": format!("client secret no. {n}")}});
                let params = PatchParams::default();
                let patched = secrets.patch("mine", &params, &Patch::Merge(next)).await;
                patched.expect("patched");
                changes.store(n, Ordering::SeqCst);
                tokio::time::sleep(pause).await;
            }
        });
    }

    async fn changed(&self, times: u64) {
        let goal = self.changes.load(Ordering::SeqCst) + times;
        let reached = async || (self.changes.load(Ordering::SeqCst) >= goal).then_some(());
        eventually("it changes", reached).await;
    }

    /// Few are stored, and what status calls active is among them.
    async fn holds(&self, name: &str) {
        let active = self.active(name).await;
        let stored = self.stored(TENANT, name).await.expect("hashes");
        let ids: Vec<_> = stored.iter().map(|s| s.credential.id.clone()).collect();
        assert!(ids.len() <= MOST_SECRETS, "{name}: {ids:?}");
        assert!(active.iter().all(|id| ids.contains(id)), "{active:?}");
    }
}

/// How long one comparison takes now, beside all that goes on.
async fn one_comparison() -> Duration {
    let begun = Instant::now();
    let compare = || {
        hash::verify(
            "no client secret at all",
            &hash::of_nothing(HIGHEST_SUPPLIED_COST),
        )
    };
    let fits = tokio::task::spawn_blocking(compare).await;
    assert!(!fits.expect("no panic"));
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_change_all_the_time_hold_nobody_up() {
    let mut flapping = Flapping::start(HIGHEST_SUPPLIED_COST).await;
    let mut key = flapping.scene.follows("main", None).await;
    flapping.supplied("u00").await;
    eventually("the first works", async || {
        (flapping.active("u00").await == ["1"]).then_some(())
    })
    .await;
    for n in 1..30 {
        flapping.supplied(&format!("u{n:02}")).await;
    }
    flapping.change_every(Duration::from_millis(200));
    flapping.changed(10).await;
    for n in 0..3 {
        // Whatever else this machine does slows both down.
        let (before, asked) = (one_comparison().await, Instant::now());
        let name = format!("p{n}");
        flapping.user(OTHER, &name, json!({})).await;
        let secrets: Api<Secret> = Api::namespaced(flapping.scene.admin.clone(), OTHER);
        eventually("the other tenant's first secret", async || {
            let name = format!("{name}-credentials");
            secrets.get_opt(&name).await.expect("an answer")
        })
        .await;
        let made = asked.elapsed();

        let ordered = Instant::now();
        flapping.scene.withdraw_at_once("main", &key).await;
        eventually("the withdrawn key is out", async || {
            let kids = flapping.scene.kids("chancery-issuer").await?;
            (!kids.contains(&key)).then_some(())
        })
        .await;
        let out = ordered.elapsed();
        let limit = before.max(one_comparison().await) * 4;
        println!("a first secret after {made:?}, a key out after {out:?} (limit {limit:?})");
        assert!(made < limit, "the other tenant waited {made:?}");
        assert!(out < limit, "the emergency waited {out:?}");
        flapping.holds("u00").await;
        key = flapping.scene.follows("main", Some(&key)).await;
    }
    assert_eq!(flapping.active("u00").await, ["1"], "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_goes_on_while_what_comes_never_stands() {
    let flapping = Flapping::start(LOWEST_SUPPLIED_COST).await;
    flapping.supplied("u00").await;
    eventually("the first works", async || {
        (flapping.active("u00").await == ["1"]).then_some(())
    })
    .await;
    let secrets: Api<Secret> = Api::namespaced(flapping.scene.admin.clone(), TENANT);
    for n in 1..=4 {
        // The one before has stood there for less than servers take to learn of it, mostly.
        let plain = format!("client secret no. {n}");
        let next = json!({"stringData": {"client_secret": plain}});
        let params = PatchParams::default();
        let patched = secrets.patch("mine", &params, &Patch::Merge(next)).await;
        patched.expect("patched");
        eventually("it is stored", async || {
            flapping.holds("u00").await;
            let stored = flapping.stored(TENANT, "u00").await?;
            let newest = stored.last()?;
            hash::verify(&plain, &newest.credential.hash).then_some(())
        })
        .await;
    }
    eventually("the last one works", async || {
        flapping.holds("u00").await;
        (flapping.active("u00").await == ["5"]).then_some(())
    })
    .await;
    let stored = flapping.stored(TENANT, "u00").await.expect("hashes");
    assert_eq!(stored.len(), MOST_SECRETS, "old ones have their graces");
}
