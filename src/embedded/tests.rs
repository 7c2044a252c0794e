//! The server behind kube's own client, as controllers use it.

mod persistence;
mod watching;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::{ApiServer, Ids, Options};
use crate::clock::Clock;

/// A clock that stands still, so that answers can be compared.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

fn options() -> Options {
    let crd = include_str!("../../tests/embedded_conformance/widgets.yaml");
    let crd: CustomResourceDefinition = serde_saphyr::from_str(crd).expect("the CRD can be read");
    Options {
        crds: vec![crd],
        state_dir: None,
        clock: Arc::new(Still),
        ids: Ids::Seeded(7),
    }
}

fn server() -> ApiServer {
    ApiServer::open(options()).expect("it opens")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

async fn raw(client: &Client, method: &str, uri: &str, body: &Value) -> Result<Value, kube::Error> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", "application/json")
        .body(body)
        .expect("a request");
    client.request(request).await
}

const WIDGETS: &str = "/apis/conformance.chancery.dev/v1/namespaces/default/widgets";

fn widget(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "conformance.chancery.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    })
}

#[tokio::test]
async fn a_write_with_an_old_version_is_a_conflict() {
    let api = config_maps(&server().client("default"));
    let params = PostParams::default();
    let first = api
        .create(&params, &config_map("a", "1"))
        .await
        .expect("created");
    let mut second = first.clone();
    second.data = config_map("a", "2").data;
    api.replace("a", &params, &second).await.expect("replaced");
    let error = api
        .replace("a", &params, &second)
        .await
        .expect_err("a conflict");
    assert!(matches!(error, kube::Error::Api(status) if status.is_conflict()));
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let server = server();
    let api = config_maps(&server.client("default"));
    let made = api
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("created");
    let before = server.resource_version();
    let same = api
        .replace("a", &PostParams::default(), &made)
        .await
        .expect("replaced");
    assert_eq!(same.resource_version(), made.resource_version());
    assert_eq!(server.resource_version(), before);
}

#[tokio::test]
async fn names_are_generated() {
    let api = config_maps(&server().client("default"));
    let mut template = config_map("", "1");
    template.metadata.name = None;
    template.metadata.generate_name = Some("a-".into());
    let one = api
        .create(&PostParams::default(), &template)
        .await
        .expect("created");
    let two = api
        .create(&PostParams::default(), &template)
        .await
        .expect("created");
    assert!(one.name_any().starts_with("a-") && one.name_any().len() == 7);
    assert_ne!(one.name_any(), two.name_any());
}

#[tokio::test]
async fn what_has_lost_its_last_owner_goes() {
    let client = server().client("default");
    let api = config_maps(&client);
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    let one = api
        .create(&params, &config_map("one", ""))
        .await
        .expect("created");
    let two = api
        .create(&params, &config_map("two", ""))
        .await
        .expect("created");
    let reference = |owner: &ConfigMap| owner.owner_ref(&()).expect("it has a UID");
    let owned = |name: &str, owners: Vec<OwnerReference>| {
        let mut owned = Secret::default();
        owned.metadata.name = Some(name.to_owned());
        owned.metadata.owner_references = Some(owners);
        owned
    };
    let first = owned("of-one", vec![reference(&one)]);
    let both = owned("of-both", vec![reference(&one), reference(&two)]);
    let mut stranger = reference(&one);
    stranger.uid = "8c0ac1b5-0000-4000-8000-000000000000".into();
    let dangling = owned("dangling", vec![stranger]);
    for object in [&first, &both, &dangling] {
        secrets.create(&params, object).await.expect("created");
    }
    // A UID that nobody has is an owner that is gone, whatever its name.
    assert!(
        secrets
            .get_opt("dangling")
            .await
            .expect("an answer")
            .is_none()
    );
    api.delete("one", &DeleteParams::default())
        .await
        .expect("deleted");
    assert!(
        secrets
            .get_opt("of-one")
            .await
            .expect("an answer")
            .is_none()
    );
    let both = secrets.get("of-both").await.expect("still there");
    assert_eq!(both.owner_references().len(), 1);
    api.delete("two", &DeleteParams::default())
        .await
        .expect("deleted");
    assert!(
        secrets
            .get_opt("of-both")
            .await
            .expect("an answer")
            .is_none()
    );
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none() {
    let client = server().client("default");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut other = Namespace::default();
    other.metadata.name = Some("other".into());
    namespaces
        .create(&PostParams::default(), &other)
        .await
        .expect("created");
    let api = config_maps(&client);
    let owner = api
        .create(&PostParams::default(), &config_map("owner", ""))
        .await
        .expect("created");
    let elsewhere: Api<ConfigMap> = Api::namespaced(client, "other");
    let mut child = config_map("owned", "");
    child.metadata.owner_references = Some(vec![owner.owner_ref(&()).expect("it has a UID")]);
    elsewhere
        .create(&PostParams::default(), &child)
        .await
        .expect("created");
    assert!(
        elsewhere
            .get_opt("owned")
            .await
            .expect("an answer")
            .is_none()
    );
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along() {
    let client = server().client("default");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut other = Namespace::default();
    other.metadata.name = Some("other".into());
    namespaces
        .create(&PostParams::default(), &other)
        .await
        .expect("created");
    let api: Api<ConfigMap> = Api::namespaced(client, "other");
    let mut held = config_map("held", "");
    held.metadata.finalizers = Some(vec!["chancery.dev/hold".into()]);
    api.create(&PostParams::default(), &held)
        .await
        .expect("created");
    api.create(&PostParams::default(), &config_map("free", ""))
        .await
        .expect("created");
    namespaces
        .delete("other", &DeleteParams::default())
        .await
        .expect("deleted");
    assert!(api.get_opt("free").await.expect("an answer").is_none());
    assert!(
        namespaces
            .get_opt("other")
            .await
            .expect("an answer")
            .is_some()
    );
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &release)
        .await
        .expect("released");
    assert!(
        namespaces
            .get_opt("other")
            .await
            .expect("an answer")
            .is_none()
    );
}

#[tokio::test]
async fn a_delete_can_name_what_it_means() {
    let api = config_maps(&server().client("default"));
    let made = api
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("created");
    let only = |uid: &str| {
        DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        })
    };
    let error = api
        .delete("a", &only("another"))
        .await
        .expect_err("a conflict");
    assert!(matches!(error, kube::Error::Api(status) if status.is_conflict()));
    api.delete("a", &only(&made.uid().unwrap_or_default()))
        .await
        .expect("deleted");
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let server = server();
    let client = server.client("default");
    let api = config_maps(&client);
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &config_map(name, ""))
            .await
            .expect("created");
    }
    let first = api
        .list(&ListParams::default().limit(1))
        .await
        .expect("a page");
    let token = first.metadata.continue_.expect("there is more");
    api.delete("b", &DeleteParams::default())
        .await
        .expect("deleted");
    api.create(&PostParams::default(), &config_map("d", ""))
        .await
        .expect("created");
    let rest = ListParams::default().continue_token(&token);
    let names: Vec<_> = api
        .list(&rest)
        .await
        .expect("a page")
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["b", "c"]);
    server.compact();
    let error = api.list(&rest).await.expect_err("that moment is forgotten");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 410));
}

#[tokio::test]
async fn events_are_bounded() {
    let client = server().client("default");
    let uri = "/apis/events.k8s.io/v1/namespaces/default/events";
    for n in 0..1010 {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("e{n:04}")},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "chancery.dev/op", "reportingInstance": "op-1",
            "action": "Rotate", "reason": "Rotated", "type": "Normal",
        });
        raw(&client, "POST", uri, &event).await.expect("created");
    }
    let list = raw(&client, "GET", uri, &Value::Null)
        .await
        .expect("a list");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1000));
    assert_eq!(list["items"][0]["metadata"]["name"], "e0010");
}

#[tokio::test]
async fn no_error_quotes_a_secret() {
    let client = server().client("default");
    let uri = "/api/v1/namespaces/default/secrets";
    let plain = "correct horse battery staple";
    for body in [
        json!({"metadata": {"name": "a"}, "data": {"k": plain}}),
        json!({"metadata": {"name": "a"}, "stringData": {"k": [plain]}}),
        json!({"metadata": {"name": "a"}, "stringData": plain}),
        json!({"metadata": {"name": "A"}, "stringData": {"k": plain}}),
    ] {
        let error = raw(&client, "POST", uri, &body).await.expect_err("refused");
        assert!(!format!("{error:?}").contains("horse"), "{error:?}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answers() {
    async fn trace() -> Vec<String> {
        let client = server().client("default");
        let mut trace = Vec::new();
        for n in 0..20 {
            let mut body = widget("", &json!({"size": 1 + n % 12}));
            body["metadata"] = json!({"generateName": format!("w{}-", n % 3)});
            let answer = raw(&client, "POST", WIDGETS, &body).await;
            trace.push(format!("{answer:?}"));
        }
        let list = raw(&client, "GET", WIDGETS, &Value::Null)
            .await
            .expect("a list");
        trace.push(list.to_string());
        trace
    }
    assert_eq!(trace().await, trace().await);
}

#[tokio::test]
async fn crds_can_be_read_and_not_written() {
    let client = server().client("default");
    let uri = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let list = raw(&client, "GET", uri, &Value::Null)
        .await
        .expect("a list");
    assert_eq!(
        list["items"][0]["metadata"]["name"],
        "widgets.conformance.chancery.dev"
    );
    let error = raw(
        &client,
        "DELETE",
        &format!("{uri}/widgets.conformance.chancery.dev"),
        &Value::Null,
    )
    .await
    .expect_err("refused");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 405));
}

#[tokio::test]
async fn kube_discovers_the_kinds() {
    let client = server().client("default");
    let discovery = kube::Discovery::new(client)
        .run()
        .await
        .expect("discovered");
    let kinds: Vec<String> = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources)
        .map(|(resource, _)| resource.kind)
        .collect();
    for kind in ["Secret", "Lease", "Event", "Widget"] {
        assert!(
            kinds.iter().any(|k| k == kind),
            "{kind} is not in {kinds:?}"
        );
    }
}
