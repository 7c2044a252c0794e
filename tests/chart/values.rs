//! The values of the chart, one by one.

use serde_json::Value;

use crate::release::{objects, render, repository};

/// What can not stand in everything.yaml beside the rest, as it goes against another value there.
const ALONE: [(&str, &str); 9] = [
    ("/tls/existingSecret", r#""another""#),
    ("/image/tag", r#""v1""#),
    ("/crds/enabled", "false"),
    ("/rbac/create", "false"),
    ("/fullnameOverride", r#""another""#),
    ("/nameOverride", r#""another""#),
    ("/server/podDisruptionBudget/enabled", "false"),
    ("/operator/serviceAccount/create", "false"),
    ("/server/serviceAccount/create", "false"),
];

/// Visits every value that has no further ones in it: an empty object and a list are such.
pub fn leaves(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        match value.as_object().filter(|o| !o.is_empty()) {
            Some(object) => {
                for (key, value) in object {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    walk(value, &format!("{path}/{key}"), visit);
                }
            }
            None => visit(path, value),
        }
    }
    walk(value, "", visit);
}

/// Sets each value of values.yaml alone to something else, and sees that what is rendered differs.
/// README.md and the schema name it too.
pub fn each_has_an_effect() {
    let read = |path: &str| std::fs::read_to_string(repository(path)).expect("it is there");
    let yaml = |path: &str| -> Value { serde_saphyr::from_str(&read(path)).expect("YAML") };
    let defaults = yaml("charts/chancery/values.yaml");
    let everything = yaml("tests/chart/everything.yaml");
    let readme = read("charts/chancery/README.md");
    // A file, over which all that is set on the command line goes.
    let least = repository("charts/chancery/ci/tls-values.yaml")
        .display()
        .to_string();
    let least = ["-f".to_owned(), least];
    let plain = objects(&least.each_ref().map(String::as_str));

    let mut seen = 0;
    leaves(&defaults, &mut |path, default| {
        let dotted = path.trim_start_matches('/').replace('/', ".");
        // A setting of the pod as a whole is documented as one.
        let documented = path
            .match_indices('/')
            .map(|(at, _)| &path[..at])
            .chain([path])
            .filter(|p| !p.is_empty())
            .any(|p| {
                readme.contains(&format!(
                    "`{}`",
                    p.trim_start_matches('/').replace('/', ".")
                ))
            });
        assert!(documented, "README.md does not tell of `{dotted}`");

        let alone = ALONE.iter().find(|(p, _)| *p == path);
        let json = match (alone, everything.pointer(path)) {
            (Some((_, json)), _) => (*json).to_owned(),
            (None, Some(other)) => other.to_string(),
            (None, None) if default.is_boolean() || path.contains("ecurityContext") => {
                // A default within what is free: taken away.
                "null".to_owned()
            }
            (None, None) => panic!("tests/chart/everything.yaml does not set {path}"),
        };
        let mut arguments = least.to_vec();
        arguments.extend(["--set-json".to_owned(), format!("{dotted}={json}")]);
        match path {
            "/tls/behindProxy" => {
                arguments.extend(["--set", "tls.existingSecret="].map(str::to_owned));
            }
            "/operator/serviceAccount/create" | "/server/serviceAccount/create" => {
                let name = dotted.replace("create", "name=own");
                arguments.extend(["--set".to_owned(), name]);
            }
            "/server/drainDelaySeconds" => {
                let grace = "server.terminationGracePeriodSeconds=36";
                arguments.extend(["--set", grace].map(str::to_owned));
            }
            _ => {}
        }
        // What is set of something that is off by default has an effect once that is on.
        let part = path
            .strip_prefix("/metrics/")
            .and_then(|p| p.split_once('/'));
        let base = part
            .filter(|(_, rest)| *rest != "enabled")
            .map(|(part, _)| {
                arguments.extend(["--set".to_owned(), format!("metrics.{part}.enabled=true")]);
                let of_value = ["--set-json".to_owned(), format!("{dotted}={json}")];
                let on = arguments.iter().filter(|a| !of_value.contains(a));
                objects(&on.map(String::as_str).collect::<Vec<_>>())
            });
        let plain = base.as_ref().unwrap_or(&plain);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Not assert_ne, which would print thousands of lines.
        assert!(
            objects(&arguments) != *plain,
            "{dotted}={json} changes nothing"
        );
        seen += 1;
    });
    assert!(seen > 60, "only {seen} values were looked at");

    // And what is set in everything.yaml is a value that there is.
    leaves(&everything, &mut |path, _| {
        let free = [
            "/tiers",
            "/commonLabels",
            "/metrics/podMonitor/labels",
            "/metrics/prometheusRule/labels",
            "annotations",
            "podLabels",
            "podAnnotations",
            "nodeSelector",
            "affinity",
            "ecurityContext",
        ];
        let known = defaults.pointer(path).is_some() || free.iter().any(|f| path.contains(f));
        assert!(known, "values.yaml does not have {path}");
    });
    render(&[
        "-f",
        &repository("tests/chart/everything.yaml")
            .display()
            .to_string(),
    ])
    .expect("everything at once renders");
}
