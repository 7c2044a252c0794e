//! What the chart brings for the Prometheus operator: it selects the pods, and alerts on what they tell.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::http;
use crate::release::{LEAST, NAMESPACE, Release, SOON, objects, pick, pod_of};
use crate::support::eventually;

const BOTH: [&str; 8] = [
    "--set",
    "metrics.podMonitor.enabled=true",
    "--set",
    "metrics.podMonitor.labels.release=prometheus",
    "--set",
    "metrics.prometheusRule.enabled=true",
    "--set",
    "metrics.prometheusRule.labels.role=alerts",
];

fn with(arguments: &[&str]) -> Vec<Value> {
    objects(&[&LEAST[..], arguments].concat())
}

fn is_of_prometheus(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.starts_with("monitoring.coreos.com/")
}

/// Each rule's name and expression.
fn rules(rendered: &[Value]) -> Vec<(String, String)> {
    let rule = pick(rendered, "PrometheusRule", "chancery");
    let groups = rule["spec"]["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|g| g["rules"].as_array().expect("rules"));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rules
        .map(|rule| {
            for told in ["summary", "description"] {
                assert!(rule["annotations"][told].is_string(), "{told} of {rule}");
            }
            let severity = rule["labels"]["severity"].as_str();
            assert!(
                ["critical", "warning"].map(Some).contains(&severity),
                "{rule}"
            );
            (text(&rule["alert"]), text(&rule["expr"]))
        })
        .collect()
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let of_name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(of_name);
    words.filter(|word| word.starts_with("chancery_")).collect()
}

#[test]
fn prometheus_is_told_where_to_look_if_somebody_asks_for_it() {
    assert!(!with(&[]).iter().any(is_of_prometheus), "off by default");
    let rendered = with(&BOTH);
    let monitor = pick(&rendered, "PodMonitor", "chancery");
    assert_eq!(monitor["metadata"]["namespace"], NAMESPACE);
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object();
    let selected = selected.expect("labels");
    assert!(!selected.is_empty());
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["path"], "/metrics");
    assert_eq!(endpoint["honorLabels"], true);
    for deployment in ["chancery-operator", "chancery-server"] {
        let pod = pod_of(&rendered, deployment);
        for (name, value) in selected {
            assert_eq!(pod["metadata"]["labels"][name], *value, "{deployment}");
        }
        let ports = pod["spec"]["containers"][0]["ports"].as_array();
        let mut ports = ports.expect("ports").iter();
        assert!(
            ports.any(|port| port["name"] == endpoint["port"] && port["containerPort"] == 8081),
            "{deployment}: {endpoint}"
        );
    }
    let rule = pick(&rendered, "PrometheusRule", "chancery");
    assert_eq!(rule["metadata"]["labels"]["role"], "alerts");
    assert_eq!(rule["metadata"]["labels"]["release"], Value::Null);

    // Each alone; and what is not told from other releases by the PodMonitor's job is not at all.
    let alone = |set: &str| {
        let rendered = with(&["--set", set]);
        let kinds = rendered.into_iter().filter(is_of_prometheus);
        kinds.map(|o| o["kind"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        alone("metrics.podMonitor.enabled=true"),
        [json!("PodMonitor")]
    );
    let rule = "metrics.prometheusRule.enabled=true";
    assert_eq!(alone(rule), [json!("PrometheusRule")]);
    let job = "job=\"chancery-system/chancery\"";
    for (name, expr) in rules(&with(&BOTH)) {
        let series = expr.matches('{').count();
        assert!(
            series > 0 && expr.matches(job).count() == series,
            "{name}: {expr}"
        );
    }
    for (name, expr) in rules(&with(&["--set", rule])) {
        assert!(!expr.contains("job="), "{name}: {expr}");
    }
}

/// An alert on a metric that nobody exposes never fires.
#[test]
fn each_alert_is_on_what_metrics_tells() {
    let release = Release::shared();
    let scrape = |port: u16| {
        let url = format!("http://127.0.0.1:{port}/metrics");
        http::get(&url, None).expect("an answer").body
    };
    // The technical user's own come with its first visit.
    let told = eventually("the operator tells of technical users", SOON, || {
        let told = release.admins.map(scrape).concat();
        let user = "technical_user=\"orders\",condition=\"Ready\"} 1.0";
        told.contains(user).then_some(told.clone()).ok_or(told)
    });
    let typed = |name: &str| {
        let gauge = format!("# TYPE {name} gauge\n");
        told.contains(&gauge)
    };
    let rules = rules(&with(&BOTH));
    assert!(rules.len() > 8, "{rules:?}");
    for (alert, expr) in &rules {
        let names = names(expr);
        assert!(!names.is_empty(), "{alert}: {expr}");
        for name in names {
            assert!(typed(name), "{alert}: no {name} among\n{told}");
        }
        for selected in expr.split("condition=").skip(1) {
            let value = selected.split('"').nth(1).expect("a value");
            let known = chancery::api::v1alpha1::RING_CONDITIONS.contains(&value);
            assert!(known, "{alert}: no condition {value}");
            if expr.contains("technical_user_condition") {
                let series = format!("technical_user=\"orders\",condition=\"{value}\"}}");
                assert!(told.contains(&series), "{alert}: no {series} in\n{told}");
            }
        }
        for (open, close) in [('(', ')'), ('{', '}')] {
            let count = |c: char| expr.matches(c).count();
            assert_eq!(count(open), count(close), "{alert}: {expr}");
        }
    }
    // A server says nothing of them: as many series as there are technical users, once.
    assert!(!scrape(release.admins[1]).contains("chancery_technical_user_"));
}
