//! What an account may do: as the API server tells it, as it shows when it is tried, and as the
//! audit log has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::release::{NAMESPACE, SOON, get};
use crate::support::{ControlPlane, eventually};

/// Granted, and not seen in the audit log of the tests, each for a reason.
const NOT_SEEN: [(&str, &str, &str, &str); 1] = [
    // An object that this version can not read is read again, as it is: that takes a newer CRD.
    (
        "operator",
        "everywhere",
        "get",
        "chancery.dev/subscriptions",
    ),
];

/// All rights of an account in a namespace: those, and what every authenticated user has.
#[track_caller]
pub fn are_exactly(
    cluster: &ControlPlane,
    account: &Path,
    namespace: &str,
    expected: &[(&str, &[&str])],
) {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    });
    let file = crate::support::Scratch::new("review");
    let file = file.write("review.json", review.to_string());
    let file = file.display().to_string();
    // Validation would list the CRDs first, which neither account may.
    let create = ["create", "--validate=false", "-o", "json", "-f", &file];
    let answer = cluster.kubectl_as(account, &create);
    let answer: Value = serde_json::from_str(&answer.expect_success("the review")).expect("JSON");
    let mut rights = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().expect("rules") {
        for (group, resource, verb) in each(rule) {
            // Asking what one may do, and who one is.
            if !["authorization.k8s.io", "authentication.k8s.io"].contains(&group.as_str()) {
                rights.insert(format!("{verb} {group}/{resource}"));
            }
        }
    }
    let expected: BTreeSet<String> = expected
        .iter()
        .flat_map(|(resource, verbs)| verbs.iter().map(move |verb| format!("{verb} {resource}")))
        .collect();
    assert_eq!(rights, expected, "in {namespace}");
}

/// Each of these is refused, and by RBAC.
#[track_caller]
pub fn refused(cluster: &ControlPlane, account: &Path, attempts: &[&[&str]]) {
    for attempt in attempts {
        let answer = cluster.kubectl_as(account, attempt);
        let forbidden =
            answer.stderr.contains("(Forbidden)") || answer.stderr.contains("forbidden:");
        assert!(
            !answer.success() && forbidden,
            "kubectl {attempt:?}: {answer:?}"
        );
    }
}

/// Compares what the release's roles grant with what the audit log shows of its two programs.
/// Nothing was refused to them, and nothing is granted that they do not use.
pub fn granted_is_used(cluster: &ControlPlane) {
    for who in ["operator", "server"] {
        let granted = granted(cluster, who);
        assert!(!granted.is_empty());
        let exceptions: BTreeSet<Right> = NOT_SEEN
            .iter()
            .filter(|(of, ..)| *of == who)
            .map(|(_, scope, verb, what)| {
                ((*scope).to_owned(), (*verb).to_owned(), (*what).to_owned())
            })
            .collect();
        // The log is written a moment after the answers.
        eventually(
            &format!("the {who} has used what it is granted"),
            SOON,
            || {
                let used = used(cluster, who);
                let unused: Vec<_> = granted
                    .iter()
                    .filter(|right| !used.contains_key(*right) && !exceptions.contains(*right))
                    .collect();
                unused.is_empty().then_some(()).ok_or(format!("{unused:?}"))
            },
        );
        let used = used(cluster, who);
        println!("{who}:");
        for right in &granted {
            println!("  {right:?}: {} times", used.get(right).unwrap_or(&0));
        }
        for (right, times) in &used {
            assert!(
                granted.contains(right),
                "{who} did {right:?} {times} times without a grant"
            );
        }
    }
}

/// `own` or `everywhere`; the verb; group and resource, with the name if it is granted for that one.
type Right = (String, String, String);

/// Granted by name.
const LEASES: &str = "coordination.k8s.io/leases";

fn granted(cluster: &ControlPlane, who: &str) -> BTreeSet<Right> {
    let own = format!("chancery-{who}");
    let everywhere = format!("chancery-system:chancery:{who}");
    [
        ("own", get(cluster, &["role", &own, "-n", NAMESPACE])),
        ("everywhere", get(cluster, &["clusterrole", &everywhere])),
    ]
    .iter()
    .flat_map(|(scope, role)| {
        let rules = role["rules"].as_array().expect("rules").iter();
        rules
            .flat_map(|rule| {
                let resources = each(rule).into_iter();
                let resources =
                    resources.map(|(group, resource, verb)| (verb, format!("{group}/{resource}")));
                resources.chain(paths(rule))
            })
            .map(move |(verb, what)| ((*scope).to_owned(), verb, what))
    })
    .collect()
}

fn used(cluster: &ControlPlane, who: &str) -> BTreeMap<Right, u32> {
    let account = format!("system:serviceaccount:{NAMESPACE}:chancery-{who}");
    let mut used = BTreeMap::new();
    for event in cluster.audit_events() {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        // Other tests try with the same account what it may not.
        if event["user"]["username"] != account.as_str() || agent.starts_with("kubectl") {
            continue;
        }
        assert_ne!(event["responseStatus"]["code"], 403, "refused: {event}");
        // Their clocks are compared with its Date. Kubernetes grants it to whoever it knows
        // (system:public-info-viewer).
        if event["verb"] == "get" && event["requestURI"] == "/version" {
            continue;
        }
        let path = event["requestURI"].as_str().unwrap_or_default();
        if event["objectRef"].is_null() {
            let path = path.split('?').next().unwrap_or_default().to_owned();
            let verb = event["verb"].as_str().unwrap_or_default().to_owned();
            *used
                .entry(("everywhere".to_owned(), verb, path))
                .or_default() += 1;
            continue;
        }
        let object = &event["objectRef"];
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let mut what = format!(
            "{}/{}",
            text(&object["apiGroup"]),
            text(&object["resource"])
        );
        if object["subresource"].is_string() {
            what = format!("{what}/{}", text(&object["subresource"]));
        }
        let scoped = granted_scope(who, &what, &object["namespace"]);
        let verb = text(&event["verb"]);
        // What is made has no name yet when RBAC is asked.
        let outbox = who == "server" && ["get", "update"].contains(&verb.as_str());
        if (what == LEASES && verb != "create") || (what == "/configmaps" && outbox) {
            what = format!("{what}:{}", text(&object["name"]));
        }
        *used.entry((scoped, verb, what)).or_default() += 1;
    }
    used
}

/// Where a right comes from: what is of the operator namespace alone is granted there.
fn granted_scope(who: &str, what: &str, namespace: &Value) -> String {
    let kept_to_it = what.starts_with("chancery.dev/signingkeys")
        || what == LEASES
        || (who == "server" && ["/configmaps", "/secrets"].contains(&what));
    let own = kept_to_it && namespace == NAMESPACE;
    if own { "own" } else { "everywhere" }.to_owned()
}

/// Verb and path of each right that a rule gives beside those on objects.
fn paths(rule: &Value) -> Vec<(String, String)> {
    let list = |key: &str| -> Vec<String> {
        let list = rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let verbs = list("verbs");
    list("nonResourceURLs")
        .into_iter()
        .flat_map(|path| verbs.iter().map(move |verb| (verb.clone(), path.clone())))
        .collect()
}

/// Group, resource and verb of each right that a rule gives. A resource that is granted by name alone
/// is `resource:name`.
fn each(rule: &Value) -> Vec<(String, String, String)> {
    let list = |key: &str| -> Vec<&str> {
        let list = rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect()
    };
    let names = list("resourceNames");
    let mut all = Vec::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            let resources = match names.as_slice() {
                [] => vec![resource.to_owned()],
                names => names.iter().map(|n| format!("{resource}:{n}")).collect(),
            };
            for resource in resources {
                for verb in list("verbs") {
                    all.push((group.to_owned(), resource.clone(), verb.to_owned()));
                }
            }
        }
    }
    all
}
