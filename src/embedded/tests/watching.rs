//! Watches, by kube's own watcher.

use std::future::ready;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;
use tower::Service as _;

use super::{config_map, config_maps, server};

fn reflect(api: Api<ConfigMap>, config: watcher::Config) -> (Store<ConfigMap>, JoinHandle<()>) {
    let (reader, writer) = reflector::store();
    let stream = watcher(api, config).default_backoff().reflect(writer);
    (reader, tokio::spawn(stream.for_each(|_| ready(()))))
}

async fn becomes(store: &Store<ConfigMap>, expected: &[(&str, &str)]) {
    let mut last = Vec::new();
    for _ in 0..500 {
        last = store
            .state()
            .iter()
            .map(|c| {
                let value = c.data.as_ref().and_then(|d| d.get("k")).cloned();
                (c.name_any(), value.unwrap_or_default())
            })
            .collect();
        last.sort();
        if last
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .eq(expected.iter().copied())
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the store holds {last:?}, not {expected:?}");
}

async fn converges(config: watcher::Config) {
    let server = server();
    let api = config_maps(&server.client("default"));
    let params = PostParams::default();
    api.create(&params, &config_map("before", "1"))
        .await
        .expect("created");
    let (store, task) = reflect(api.clone(), config);
    becomes(&store, &[("before", "1")]).await;
    api.create(&params, &config_map("after", "1"))
        .await
        .expect("created");
    api.replace("before", &params, &config_map("before", "2"))
        .await
        .expect("replaced");
    becomes(&store, &[("after", "1"), ("before", "2")]).await;

    server.disconnect_watches();
    api.delete("after", &DeleteParams::default())
        .await
        .expect("deleted");
    becomes(&store, &[("before", "2")]).await;

    // A watch that was away while its place in history went gets a 410 and lists anew. Nothing
    // is awaited here, so that the watch can not come back in between.
    server.disconnect_watches();
    let body = serde_json::to_vec(&config_map("late", "1")).expect("JSON");
    let request = Request::post("/api/v1/namespaces/default/configmaps").body(body.into());
    let made = server
        .service()
        .call(request.expect("a request"))
        .now_or_never();
    assert!(made.is_some_and(|answer| answer.is_ok_and(|a| a.status() == 201)));
    server.compact();
    becomes(&store, &[("before", "2"), ("late", "1")]).await;
    task.abort();
}

#[tokio::test]
async fn a_reflector_converges_by_list_and_watch() {
    converges(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_reflector_converges_by_a_streaming_list() {
    converges(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn a_reflector_converges_page_by_page() {
    converges(watcher::Config::default().page_size(1)).await;
}

#[tokio::test]
async fn an_object_leaves_and_enters_a_selection() {
    let server = server();
    let api = config_maps(&server.client("default"));
    let (store, task) = reflect(
        api.clone(),
        watcher::Config::default().labels("tier in (gold)"),
    );
    api.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("created");
    for (tier, expected) in [
        ("gold", &[("a", "1")][..]),
        ("tin", &[]),
        ("gold", &[("a", "1")]),
    ] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"tier": tier}}}));
        api.patch("a", &PatchParams::default(), &patch)
            .await
            .expect("patched");
        becomes(&store, expected).await;
    }
    task.abort();
}

/// The events of a watch from a version on, until it is idle.
async fn events(api: &Api<ConfigMap>, version: &str) -> Vec<String> {
    let stream = api
        .watch(&kube::api::WatchParams::default().timeout(1), version)
        .await
        .expect("a watch");
    names(stream).await
}

async fn names(
    stream: impl Stream<Item = kube::Result<kube::api::WatchEvent<ConfigMap>>>,
) -> Vec<String> {
    use kube::api::WatchEvent;
    let stream = stream.filter_map(|event| {
        ready(match event {
            Ok(WatchEvent::Added(o)) => Some(format!("added {}", o.name_any())),
            Ok(WatchEvent::Modified(o)) => Some(format!("modified {}", o.name_any())),
            Ok(WatchEvent::Deleted(o)) => Some(format!("deleted {}", o.name_any())),
            Ok(WatchEvent::Error(status)) => Some(format!("error {}", status.code)),
            Ok(WatchEvent::Bookmark(_)) => None,
            Err(error) => Some(error.to_string()),
        })
    });
    stream.collect().await
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_and_starts_where_it_is_told() {
    let server = server();
    let api = config_maps(&server.client("default"));
    let params = PostParams::default();
    let first = api
        .create(&params, &config_map("a", "1"))
        .await
        .expect("created");
    api.replace("a", &params, &config_map("a", "2"))
        .await
        .expect("replaced");
    api.delete("a", &DeleteParams::default())
        .await
        .expect("deleted");
    let version = first.resource_version().unwrap_or_default();
    assert_eq!(events(&api, &version).await, ["modified a", "deleted a"]);
    server.compact();
    assert_eq!(events(&api, &version).await, ["error 410"]);
}
