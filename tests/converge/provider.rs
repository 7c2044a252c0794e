//! Outside providers: their keys reach every replica's snapshot by an object, follow what the provider says,
//! and outlast its outage; what stands against one is told, and keeps its tokens out.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chancery::api::v1alpha1::{OidcProvider, OidcProviderStatus};
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::domain::settings::ProviderSettings;
use chancery::serve::snapshot::Snapshot;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::scene::eventually;
use super::*;

/// A provider on loopback: what it answers can be changed, and it can be taken down.
struct Provider {
    base: String,
    /// Status line and body by path; nothing: it hangs up.
    answers: Arc<Mutex<Answers>>,
    asked: Arc<AtomicU64>,
}

#[derive(Clone, Default)]
struct Answers {
    metadata: String,
    jwks: String,
    down: bool,
    /// It answers only after so long.
    slow: Duration,
}

fn keys(count: usize) -> (String, Vec<String>) {
    let pairs: Vec<KeyPair> = (0..count)
        .map(|_| {
            let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
            KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair")
        })
        .collect();
    let jwks: Vec<_> = pairs.iter().map(KeyPair::public_jwk).collect();
    let kids = pairs.iter().map(|pair| pair.key_id().to_owned()).collect();
    (json!({ "keys": jwks }).to_string(), kids)
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let metadata = json!({"issuer": base, "jwks_uri": format!("{base}/jwks")}).to_string();
        let answers = Arc::new(Mutex::new(Answers {
            metadata,
            ..Answers::default()
        }));
        let asked = Arc::<AtomicU64>::default();
        let (given, count) = (answers.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let now = given.lock().expect("no panic").clone();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    tokio::time::sleep(now.slow).await;
                    let mut asked = vec![0; 4096];
                    let read = stream.read(&mut asked).await.unwrap_or_default();
                    let jwks = asked[..read].starts_with(b"GET /jwks ");
                    let body = if jwks { now.jwks } else { now.metadata };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if !now.down {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Self {
            base,
            answers,
            asked,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().expect("no panic"));
    }

    /// It has so many new keys, and no others; gives their kids.
    fn rotate(&self, count: usize) -> Vec<String> {
        let (jwks, kids) = keys(count);
        self.set(|answers| answers.jwks = jwks);
        kids
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An operator with a tenant, and the feed of a server.
struct World {
    client: Client,
    running: Running,
    feed: Mutex<Feed>,
    settings: Arc<Settings>,
    api: ApiServer,
}

impl World {
    async fn start() -> Self {
        let (api, client) = world().await;
        let settings = Arc::new(Settings {
            providers: ProviderSettings {
                allowed_addresses: vec!["127.0.0.0/8".into()],
                ..ProviderSettings::default()
            },
            ..(*super::settings()).clone()
        });
        let running = operator_with(api.client("default"), settings.clone());
        let feed = Self::feed(&running, &settings);
        Self {
            client,
            running,
            feed: Mutex::new(feed),
            settings,
            api,
        }
    }

    fn feed(running: &Running, settings: &Arc<Settings>) -> Feed {
        let readiness = Readiness::waiting_for([]);
        Feed::new(
            running.stores.clone(),
            settings.clone(),
            clock::system(),
            readiness,
        )
    }

    /// Another operator in the place of this one, which knows only what is written.
    fn restart(&mut self) {
        self.running = operator_with(self.api.client("default"), self.settings.clone());
        self.feed = Mutex::new(Self::feed(&self.running, &self.settings));
    }

    fn providers(&self, namespace: &str) -> Api<OidcProvider> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn make(&self, namespace: &str, name: &str, provider: &Provider, more: Value) {
        let mut spec = json!({
            "wellKnownUri": format!("{}/.well-known/openid-configuration", provider.base),
            "requireHttps": false, "issuers": [provider.base], "audiences": ["orders"],
        });
        let more = more.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(more);
        let made = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
            "metadata": {"name": name}, "spec": spec,
        });
        let made = serde_json::from_value(made).expect("valid");
        let made = self
            .providers(namespace)
            .create(&PostParams::default(), &made)
            .await;
        made.expect("created");
    }

    async fn patch(&self, namespace: &str, name: &str, patch: Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.providers(namespace).patch(name, &params, &patch).await;
        patched.expect("patched");
    }

    async fn reload(&self, namespace: &str, name: &str, value: &str) {
        let annotations = json!({"chancery.dev/reload": value});
        self.patch(
            namespace,
            name,
            json!({"metadata": {"annotations": annotations}}),
        )
        .await;
    }

    async fn uid(&self, namespace: &str, name: &str) -> String {
        let provider = self.providers(namespace).get(name).await;
        provider.expect("the provider").uid().expect("a UID")
    }

    async fn status(&self, namespace: &str, name: &str) -> OidcProviderStatus {
        let provider = self
            .providers(namespace)
            .get(name)
            .await
            .expect("the provider");
        provider.status.unwrap_or_default()
    }

    /// Waits until a condition says so, and gives the status.
    async fn says(
        &self,
        name: (&str, &str),
        kind: &str,
        holds: bool,
        reason: &str,
    ) -> OidcProviderStatus {
        let what = format!("{name:?}: {kind} is {holds} for {reason}");
        eventually(&what, async || {
            let status = self.status(name.0, name.1).await;
            let wanted = if holds { "True" } else { "False" };
            let found = |c: &Condition| c.type_ == kind && c.status == wanted && c.reason == reason;
            status.conditions.iter().any(found).then_some(status)
        })
        .await
    }

    /// Waits until what is made next is younger by its creationTimestamp, which counts seconds.
    async fn a_second_later(&self) {
        let second = || clock::system().now().as_second();
        let begun = second();
        eventually("a second passes", async || (second() > begun).then_some(())).await;
    }

    /// The kids of each provider that a server trusts for a tenant.
    fn trusted(&self, namespace: &str) -> Vec<(String, Vec<String>)> {
        let snapshot: Snapshot = self.feed.lock().expect("no panic").build(None);
        let now = clock::system().now();
        let known = snapshot.providers_of(namespace, now);
        let known = known.filter(|provider| !provider.keys.0.is_empty());
        let of = known.map(|provider| {
            let keys = provider.keys.0.iter().map(|key| key.key_id().to_owned());
            (provider.provider.id(), keys.collect())
        });
        of.collect()
    }

    async fn trusts(&self, namespace: &str, wanted: &[(&str, &[String])]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(id, kids)| ((*id).to_owned(), kids.to_vec()))
            .collect();
        let what = format!("{namespace} trusts {wanted:?}");
        eventually(&what, async || {
            (self.trusted(namespace) == wanted).then_some(())
        })
        .await;
    }

    async fn maps(&self) -> Vec<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), OPERATOR);
        let all = maps.list(&ListParams::default()).await.expect("a list");
        let names = all.iter().map(ResourceExt::name_any);
        names.filter(|name| name.contains("provider")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_the_provider_and_outlast_its_outage() {
    let mut world = World::start().await;
    let provider = Provider::start().await;
    let first = provider.rotate(2);
    world.make(TENANT, "corp", &provider, json!({})).await;
    let corp = (TENANT, "corp");
    let status = world.says(corp, "Ready", true, "Succeeded").await;
    assert_eq!(
        (status.issuer.as_ref(), &status.key_ids),
        (Some(&provider.base), &first)
    );
    assert!(status.last_refresh.is_some() && status.next_refresh.is_some());
    world.says(corp, "Reachable", true, "Succeeded").await;
    world.says(corp, "IssuerValidated", true, "Succeeded").await;
    world.trusts(TENANT, &[("acme/corp", &first)]).await;
    assert!(
        world.trusted("other").is_empty(),
        "it is that tenant's alone"
    );
    assert_eq!(world.maps().await, ["chancery-provider.acme.corp-keys"]);

    let second = provider.rotate(1);
    world.reload(TENANT, "corp", "one").await;
    world.trusts(TENANT, &[("acme/corp", &second)]).await;
    eventually("the reload is told", async || {
        let status = world.status(TENANT, "corp").await;
        (status.last_handled_reload.as_deref() == Some("one")).then_some(())
    })
    .await;

    // Down, and up with other keys again.
    provider.set(|answers| answers.down = true);
    world.reload(TENANT, "corp", "two").await;
    let status = world
        .says(corp, "Reachable", false, "ProviderUnreachable")
        .await;
    assert_eq!(status.key_ids, second, "a reload drops no key");
    world.says(corp, "Ready", true, "Succeeded").await;
    world.trusts(TENANT, &[("acme/corp", &second)]).await;
    world.restart();
    world.trusts(TENANT, &[("acme/corp", &second)]).await;
    let third = provider.rotate(1);
    provider.set(|answers| answers.down = false);
    world.trusts(TENANT, &[("acme/corp", &third)]).await;
    world.says(corp, "Reachable", true, "Succeeded").await;

    // Whatever it says now, its keys stay.
    let private = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "d": "AQ"}]});
    let huge = " ".repeat(2 * 1024 * 1024);
    for (what, jwks) in [
        ("private", private.to_string()),
        ("empty", r#"{"keys":[]}"#.into()),
        ("broken", "{".into()),
        ("huge", huge),
    ] {
        provider.set(|answers| answers.jwks = jwks);
        world.reload(TENANT, "corp", what).await;
        eventually(&format!("{what} is asked for"), async || {
            let status = world.status(TENANT, "corp").await;
            (status.last_handled_reload.as_deref() == Some(what)).then_some(())
        })
        .await;
        let status = world.says(corp, "Stalled", true, "ProviderRefused").await;
        assert_eq!(status.key_ids, third, "{what}");
        world.says(corp, "Ready", true, "Succeeded").await;
        world.trusts(TENANT, &[("acme/corp", &third)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_one_keeps_its_tokens_out() {
    let world = World::start().await;
    let (mine, other) = (Provider::start().await, Provider::start().await);
    let (kids, others) = (mine.rotate(1), other.rotate(1));
    world.make(OPERATOR, "all", &mine, json!({})).await;
    world.trusts(TENANT, &[("all", &kids)]).await;
    world.trusts("anybody", &[("all", &kids)]).await;

    // The younger gives way, and takes its place when the elder is gone.
    world.a_second_later().await;
    world
        .make(
            OPERATOR,
            "twin",
            &mine,
            json!({"audiences": ["bills", "orders"]}),
        )
        .await;
    world
        .says((OPERATOR, "twin"), "Stalled", true, "ProviderConflict")
        .await;
    world.make(TENANT, "own", &mine, json!({})).await;
    world
        .says((TENANT, "own"), "Stalled", true, "ProviderConflict")
        .await;
    world.trusts(TENANT, &[("all", &kids)]).await;
    world
        .patch(OPERATOR, "all", json!({"spec": {"active": false}}))
        .await;
    world
        .says((OPERATOR, "all"), "Ready", true, "Inactive")
        .await;
    world.trusts(TENANT, &[("twin", &kids)]).await;
    let deleted = world
        .providers(OPERATOR)
        .delete("twin", &DeleteParams::default())
        .await;
    deleted.expect("deleted");
    world.trusts(TENANT, &[("acme/own", &kids)]).await;
    eventually("nothing is left of it", async || {
        let gone = !world
            .maps()
            .await
            .contains(&"chancery-provider-twin-keys".to_owned());
        gone.then_some(())
    })
    .await;

    // Of a namespace without a Subscription, or another issuer, or any issuer.
    let params = PostParams::default();
    let namespace = serde_json::from_value(json!({"metadata": {"name": "nobody"}})).expect("valid");
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces
        .create(&params, &namespace)
        .await
        .expect("created");
    world.make("nobody", "corp", &other, json!({})).await;
    world
        .says(("nobody", "corp"), "Ready", false, "NoSubscription")
        .await;
    assert_eq!(other.asked(), 0, "nobody is asked for no one");
    let elsewhere = json!({"issuers": ["https://elsewhere.example"]});
    world.make(TENANT, "elsewhere", &other, elsewhere).await;
    world
        .says((TENANT, "elsewhere"), "Stalled", true, "IssuerMismatch")
        .await;
    world
        .make(
            TENANT,
            "any",
            &other,
            json!({"issuers": [], "audiences": ["bills"]}),
        )
        .await;
    world
        .says((TENANT, "any"), "Stalled", true, "PolicyViolation")
        .await;
    world
        .says(
            (TENANT, "any"),
            "IssuerValidated",
            false,
            "IssuerNotValidated",
        )
        .await;
    world
        .make(
            OPERATOR,
            "any",
            &other,
            json!({"issuers": [], "audiences": ["bills"]}),
        )
        .await;
    world
        .says((OPERATOR, "any"), "Ready", true, "Succeeded")
        .await;
    let ours = json!({"issuers": [world.settings.issuer], "audiences": ["more"]});
    world.make(TENANT, "ours", &other, ours).await;
    world
        .says((TENANT, "ours"), "Stalled", true, "InvalidSpec")
        .await;

    // An example that fails, and then does not.
    let example = |id: &str| json!([{"token": {"sub": "ada"}, "expect": {"id": id}}]);
    world
        .patch(
            TENANT,
            "elsewhere",
            json!({"spec": {"issuers": [other.base], "examples": example("ada")}}),
        )
        .await;
    let status = world
        .says((TENANT, "elsewhere"), "Stalled", true, "ExampleFailed")
        .await;
    let told = status.conditions.iter().any(|c| {
        c.message
            .contains(r#"id is "acme/elsewhere:ada", and "ada" is expected"#)
    });
    assert!(told, "{:?}", status.conditions);
    assert!(
        !world
            .trusted(TENANT)
            .iter()
            .any(|(id, _)| id == "acme/elsewhere")
    );
    world
        .patch(
            TENANT,
            "elsewhere",
            json!({"spec": {"examples": example("acme/elsewhere:ada")}}),
        )
        .await;
    world
        .says((TENANT, "elsewhere"), "Ready", true, "Succeeded")
        .await;
    let three: [(&str, &[String]); 3] = [
        ("acme/elsewhere", &others),
        ("acme/own", &kids),
        ("any", &others),
    ];
    world.trusts(TENANT, &three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_holds_up_nobody() {
    let world = World::start().await;
    let (slow, quick) = (Provider::start().await, Provider::start().await);
    slow.rotate(1);
    slow.set(|answers| answers.slow = Duration::from_mins(2));
    let kids = quick.rotate(1);
    for number in 0..20 {
        let audiences = json!({"audiences": [format!("slow-{number}")]});
        world
            .make(TENANT, &format!("slow-{number}"), &slow, audiences)
            .await;
    }
    world.make(OPERATOR, "quick", &quick, json!({})).await;
    world.trusts(TENANT, &[("quick", &kids)]).await;
    converged(&world.client, &world.running, "beside slow providers").await;
}

/// What servers note of a key that they miss has the provider asked again, soon and once; nothing else that is
/// put there does anything, and nothing stays there.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_servers_miss_are_asked_for() {
    let world = World::start().await;
    let (provider, other) = (Provider::start().await, Provider::start().await);
    let (first, others) = (provider.rotate(1), other.rotate(1));
    let hourly =
        |audience: &str| json!({"audiences": [audience], "jwks": {"refreshInterval": "1h"}});
    world.make(TENANT, "corp", &provider, hourly("a")).await;
    world.make(TENANT, "other", &other, hourly("b")).await;
    let trusts = async |of_corp: &[String]| {
        let both: [(&str, &[String]); 2] = [("acme/corp", of_corp), ("acme/other", &others)];
        world.trusts(TENANT, &both).await;
    };
    trusts(&first).await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), OPERATOR);
    let notes = async || {
        maps.get_opt("chancery-wanted-keys")
            .await
            .expect("an answer")
    };
    let empty = async |what: &str| {
        eventually(what, async || {
            notes().await.filter(|map| map.data.is_none())
        })
        .await
    };
    empty("it is made").await;

    // As a server does it.
    let second = provider.rotate(1);
    let snapshot = world.feed.lock().expect("no panic").build(None);
    let of = |id: &str| {
        let found = snapshot
            .providers
            .iter()
            .find(|one| one.provider.id() == id);
        Arc::clone(found.expect("it is trusted"))
    };
    let (to, taken) = chancery::wanted_keys::channel();
    let (settings, clock) = (world.settings.clone(), clock::system());
    let writer = chancery::wanted_keys::Writer::new(world.client.clone(), &settings, clock, taken);
    tokio::spawn(writer.run());
    for _ in 0..1000 {
        chancery::serve::outside_token::KeysWanted::want(&to, &of("acme/corp"));
    }
    trusts(&second).await;
    assert_eq!(provider.asked(), 4, "metadata and JWKS, twice");
    empty("the note is taken away").await;

    // By hand.
    let third = provider.rotate(1);
    let mut map = notes().await.expect("there");
    let mut data = BTreeMap::from([("x".repeat(200), "y".repeat(100_000))]);
    data.extend((0..2000).map(|n| (format!("nobody-{n}"), String::new())));
    data.insert(world.uid(TENANT, "corp").await, "not a time".into());
    map.data = Some(data);
    let replaced = maps
        .replace("chancery-wanted-keys", &PostParams::default(), &map)
        .await;
    replaced.expect("replaced");
    empty("what was put there is taken away").await;
    trusts(&third).await;
    assert_eq!((provider.asked(), other.asked()), (6, 2));
    // Gone, it is made again.
    let deleted = maps
        .delete("chancery-wanted-keys", &DeleteParams::default())
        .await;
    deleted.expect("deleted");
    empty("it is made again").await;
}

/// What this issuer's own keys signed is its own, whoever publishes them, and whatever stands under their kids.
#[tokio::test(flavor = "multi_thread")]
async fn no_provider_speaks_with_a_key_of_our_own() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), OPERATOR);
    let ours = eventually("our own JWKS", async || {
        let map = maps.get_opt("chancery-issuer").await.expect("an answer")?;
        let jwks: Value = serde_json::from_str(map.data?.get("jwks.json")?).ok()?;
        let keys = jwks["keys"].as_array()?.clone();
        (!keys.is_empty()).then_some(keys)
    })
    .await;
    let stolen = Provider::start().await;
    let kids = stolen.rotate(2);
    stolen.set(|answers| {
        let mut jwks: Value = serde_json::from_str(&answers.jwks).expect("JSON");
        let keys = jwks["keys"].as_array_mut().expect("keys");
        // One under a kid of ours.
        keys[1]["kid"] = ours[0]["kid"].clone();
        keys.extend(ours[1..].iter().cloned());
        answers.jwks = jwks.to_string();
    });
    world.make(TENANT, "corp", &stolen, json!({})).await;
    world.trusts(TENANT, &[("acme/corp", &kids[..1])]).await;
    // Nothing else of it: no token of it is taken, nor is it waited for.
    let ours = json!({ "keys": ours }).to_string();
    stolen.set(|answers| answers.jwks = ours);
    world.reload(TENANT, "corp", "one").await;
    eventually("it is not trusted any more", async || {
        let snapshot = world.feed.lock().expect("no panic").build(None);
        let left = snapshot
            .providers
            .iter()
            .any(|one| one.provider.id() == "acme/corp");
        (!left).then_some(())
    })
    .await;
}

/// So many are judged and tried, the older first; where one goes the next comes in.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_so_many_providers() {
    use chancery::domain::provider::MOST_PER_NAMESPACE;

    let world = World::start().await;
    let (jwks, _) = keys(1);
    let jwks: Value = serde_json::from_str(&jwks).expect("JSON");
    let make = async |name: &str| {
        let made = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
            "metadata": {"name": name},
            "spec": {"issuers": ["https://corp.example"], "audiences": [name], "jwks": jwks},
        });
        let made = serde_json::from_value(made).expect("valid");
        let params = PostParams::default();
        let made = world.providers(TENANT).create(&params, &made).await;
        made.expect("created");
    };
    for n in 1..=MOST_PER_NAMESPACE {
        make(&format!("p{n:02}")).await;
    }
    world.a_second_later().await;
    make("late").await;
    let late = (TENANT, "late");
    let said = world.says(late, "Stalled", true, "TooManyProviders").await;
    assert!(said.conditions[0].message.contains("32 older"), "{said:?}");
    let trusts_late = || {
        world
            .trusted(TENANT)
            .iter()
            .any(|(id, _)| id == "acme/late")
    };
    eventually("the others are trusted", async || {
        (world.trusted(TENANT).len() == MOST_PER_NAMESPACE && !trusts_late()).then_some(())
    })
    .await;
    let (providers, params) = (world.providers(TENANT), DeleteParams::default());
    providers.delete("p07", &params).await.expect("deleted");
    world.says(late, "Ready", true, "Succeeded").await;
    eventually("it comes in", async || trusts_late().then_some(())).await;
}
