//! Rings on an API server that can refuse what a quota would, with times of seconds.

use std::sync::Mutex;

use chancery::domain::period::Period;
use chancery::domain::settings::{JwksSettings, ServingSettings, TokenSettings};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

/// The API server, which may refuse some writes.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Mutex<Service>>,
    /// The method, and how the path ends.
    refuses: Arc<Mutex<Option<(Method, String)>>>,
    refused: Arc<Mutex<Vec<Instant>>>,
    requests: Arc<AtomicU64>,
}

impl tower::Service<Request<Body>> for Gate {
    type Response = <Service as tower::Service<Request<Body>>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (method, path) = (request.method(), request.uri().path());
        let refuses = self.refuses.lock().expect("no panic").clone();
        if refuses.is_some_and(|(of, end)| of == *method && path.ends_with(&end)) {
            self.refused.lock().expect("no panic").push(Instant::now());
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "exceeded quota: none",
            });
            let body = Full::new(bytes::Bytes::from(status.to_string())).boxed_unsync();
            let answer = Response::builder().status(403).body(body);
            return Box::pin(async move { answer.map_err(Into::into) });
        }
        let call = self.inner.lock().expect("no panic").call(request);
        Box::pin(call)
    }
}

impl Gate {
    /// One that refuses nothing yet.
    pub fn new(api: &ApiServer) -> Self {
        Self {
            inner: Arc::new(Mutex::new(api.service())),
            refuses: Arc::default(),
            refused: Arc::default(),
            requests: Arc::default(),
        }
    }

    /// Refuses to make Secrets, or nothing.
    pub fn refuse(&self, refuses: bool) {
        let secrets = (Method::POST, "/secrets".to_owned());
        *self.refuses.lock().expect("no panic") = refuses.then_some(secrets);
    }

    /// Refuses to replace an object of that plural and name, until it refuses something else.
    pub fn refuse_replacing(&self, plural: &str, name: &str) {
        let replacing = (Method::PUT, format!("/{plural}/{name}"));
        *self.refuses.lock().expect("no panic") = Some(replacing);
    }

    /// When it refused something.
    pub fn refusals(&self) -> Vec<Instant> {
        self.refused.lock().expect("no panic").clone()
    }

    /// How often the operator asked for anything.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

pub struct Scene {
    /// Whoever is at the API server itself.
    pub admin: Client,
    pub gate: Gate,
    pub settings: Arc<Settings>,
    pub running: Running,
    _api: ApiServer,
}

impl Scene {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings that are altered so.
    pub async fn with(alter: impl FnOnce(&mut Settings)) -> Self {
        let (api, admin) = empty_world().await;
        let gate = Gate::new(&api);
        let second = Period::from_secs(1);
        let mut settings = Settings {
            jwks: JwksSettings { max_age: second },
            serving: ServingSettings {
                max_staleness: second,
                ..ServingSettings::default()
            },
            tokens: TokenSettings {
                default_ttl: second,
                max_ttl: second,
                clock_leeway: second,
                ..TokenSettings::default()
            },
            ..(*super::settings()).clone()
        };
        alter(&mut settings);
        let settings = Arc::new(settings);
        let client = Client::new(gate.clone(), "default");
        let running = operator_with(client, settings.clone());
        Self {
            admin,
            gate,
            settings,
            running,
            _api: api,
        }
    }

    pub fn rings(&self) -> Api<SigningKey> {
        Api::namespaced(self.admin.clone(), OPERATOR)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), OPERATOR)
    }

    pub fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.admin.clone(), OPERATOR)
    }

    /// A ring whose keys have a lead of 2 s, and no schedule.
    pub async fn ring(&self, name: &str, more: Value) {
        let mut spec = json!({
            "audience": "client", "algorithm": "ES256",
            "rotation": {"publishLead": "2s", "gracePeriod": "1h"},
        });
        let more = more.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().expect("an object").extend(more);
        let ring = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
            "metadata": {"name": name}, "spec": spec,
        });
        let ring = serde_json::from_value(ring).expect("valid");
        let made = self.rings().create(&PostParams::default(), &ring).await;
        made.expect("created");
    }

    pub async fn delete(&self, ring: &str) {
        let deleted = self.rings().delete(ring, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }

    /// Merges into a ring.
    pub async fn patch(&self, ring: &str, patch: Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.rings().patch(ring, &params, &patch).await;
        patched.expect("patched");
    }

    pub async fn withdraw_at_once(&self, ring: &str, kid: &str) {
        let entry = json!({"keyId": kid, "gracePeriod": "0s"});
        self.patch(ring, json!({"spec": {"invalidated": [entry]}}))
            .await;
    }

    /// Waits until a key other than that signs, and gives its kid.
    pub async fn follows(&self, ring: &str, before: Option<&str>) -> String {
        eventually(&format!("{ring}: another key signs"), async || {
            let status = self.rings().get(ring).await.expect("the ring").status?;
            status
                .active_key_id
                .filter(|kid| Some(kid.as_str()) != before)
        })
        .await
    }

    /// Asks for a rotation, and gives the kid of the key that then signs.
    pub async fn rotate(&self, ring: &str, before: &str) -> String {
        let annotations = json!({"chancery.dev/rotate": format!("after {before}")});
        self.patch(ring, json!({"metadata": {"annotations": annotations}}))
            .await;
        self.follows(ring, Some(before)).await
    }

    /// The kids in a ConfigMap.
    pub async fn kids(&self, map: &str) -> Option<Vec<String>> {
        let map = self.maps().get_opt(map).await.expect("an answer")?;
        let keys = chancery::objects::jwks_map::read(&map)?.keys;
        Some(keys.into_iter().map(|key| key.kid).collect())
    }

    /// What the events of that reason say.
    pub async fn events(&self, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.admin.clone(), OPERATOR);
        let events = events.list(&ListParams::default()).await.expect("a list");
        let of = events
            .items
            .into_iter()
            .filter(|e| e.reason.as_deref() == Some(reason));
        of.filter_map(|event| event.note).collect()
    }

    /// A condition that is true, as reason and message.
    pub async fn told(&self, ring: &str, kind: &str) -> Option<(String, String)> {
        let status = self.rings().get(ring).await.expect("the ring").status?;
        let mut all = status.conditions.into_iter();
        let found = all.find(|c| c.type_ == kind && c.status == "True")?;
        Some((found.reason, found.message))
    }
}

/// Waits until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waiting).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"))
}
