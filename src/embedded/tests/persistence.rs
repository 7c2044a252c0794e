//! What survives a restart, a crash, and a disk that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kube::api::{DeleteParams, PostParams};
use kube::{Resource as _, ResourceExt};
use serde_json::{Value, json};

use super::super::{ApiServer, Ids, OpenError};
use super::{WIDGETS, config_map, config_maps, options, raw, widget};

/// A directory of this test's own, removed when it ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("chancery-embedded-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Result<ApiServer, OpenError> {
    let mut options = options();
    options.state_dir = Some(path.to_owned());
    options.ids = Ids::Random;
    ApiServer::open(options)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[tokio::test]
async fn objects_survive_a_restart_and_versions_go_on() {
    let dir = Dir::new("restart");
    let server = open(&dir.0).expect("it opens");
    let client = server.client("default");
    let api = config_maps(&client);
    // Texts that YAML likes to take for something else.
    for (name, value) in [
        ("null", "null"),
        ("number", "1.0"),
        ("lines", "a: b\n- c\n\n"),
        ("odd", " \t#~"),
    ] {
        api.create(&PostParams::default(), &config_map(name, value))
            .await
            .expect("created");
    }
    raw(&client, "POST", WIDGETS, &widget("w", &json!({"size": 3})))
        .await
        .expect("created");
    api.create(&PostParams::default(), &config_map("gone", ""))
        .await
        .expect("created");
    api.delete("gone", &DeleteParams::default())
        .await
        .expect("deleted");
    let before = api
        .list(&kube::api::ListParams::default())
        .await
        .expect("a list")
        .items;
    let version = server.resource_version();
    drop((client, api, server));

    // The client's worker ends by itself; the lock goes with the last handle.
    let server = reopen(&dir.0).await;
    assert!(server.resource_version() > version);
    let client = server.client("default");
    let api = config_maps(&client);
    let after = api
        .list(&kube::api::ListParams::default())
        .await
        .expect("a list")
        .items;
    assert_eq!(before, after);
    let made = api
        .create(&PostParams::default(), &config_map("new", ""))
        .await
        .expect("created");
    assert!(made.resource_version().and_then(|v| v.parse::<u64>().ok()) > Some(version));
    let widget = raw(&client, "GET", &format!("{WIDGETS}/w"), &Value::Null)
        .await
        .expect("there");
    assert_eq!(widget["spec"]["size"], 3);
}

async fn reopen(path: &Path) -> ApiServer {
    for _ in 0..200 {
        match open(path) {
            Err(OpenError::Locked { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other => return other.expect("it opens"),
        }
    }
    panic!("the lock is still held");
}

#[tokio::test]
async fn files_are_their_owners_only() {
    let dir = Dir::new("modes");
    let server = open(&dir.0).expect("it opens");
    raw(
        &server.client("default"),
        "POST",
        WIDGETS,
        &widget("w", &json!({"size": 3})),
    )
    .await
    .expect("created");
    let mode = |path: &str| {
        let path = dir.0.join(path);
        fs::metadata(&path).expect("it exists").permissions().mode() & 0o777
    };
    for (path, expected) in [
        ("", 0o700),
        ("widgets", 0o700),
        ("widgets/default", 0o700),
        ("widgets/default/w.yaml", 0o600),
        ("namespaces/_cluster/default.yaml", 0o600),
        ("lock", 0o600),
        ("resource-version", 0o600),
    ] {
        assert_eq!(mode(path), expected, "{path}");
    }
}

#[tokio::test]
async fn a_directory_that_was_there_is_left_as_it_was() {
    let with_mode = |dir: &Dir, mode| {
        fs::create_dir_all(&dir.0).expect("a directory");
        fs::set_permissions(&dir.0, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let mode = |dir: &Dir| fs::metadata(&dir.0).expect("there").permissions().mode() & 0o777;

    // Others' files, also a lock of theirs: nothing is changed, nothing put there.
    let foreign = Dir::new("foreign");
    with_mode(&foreign, 0o755);
    for name in ["notes.txt", "lock"] {
        fs::write(foreign.0.join(name), "mine").expect("a file");
        let error = open(&foreign.0).err().expect("it is refused").to_string();
        assert_eq!(
            error,
            format!(
                "{} holds other files; choose an empty or new directory with --state",
                foreign.0.display()
            )
        );
        assert_eq!(mode(&foreign), 0o755);
    }
    assert_eq!(fs::read_dir(&foreign.0).expect("a list").count(), 2);
    assert_eq!(fs::read(foreign.0.join("lock")).expect("a file"), b"mine");

    let open_to_all = Dir::new("open-to-all");
    with_mode(&open_to_all, 0o777);
    let error = open(&open_to_all.0).err().expect("refused").to_string();
    assert!(error.contains("can be written by everybody"), "{error}");
    assert_eq!(fs::read_dir(&open_to_all.0).expect("a list").count(), 0);

    // Empty, or what a start leaves that was killed early.
    let empty = Dir::new("empty");
    with_mode(&empty, 0o755);
    drop(open(&empty.0).expect("it opens"));
    assert_eq!(mode(&empty), 0o755);
    let early = Dir::new("early");
    with_mode(&early, 0o700);
    fs::write(early.0.join("lock"), "").expect("a file");
    fs::write(early.0.join(".write.tmp"), "10").expect("a file");
    open(&early.0).expect("it opens");
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let dir = Dir::new("lock");
    let _held = open(&dir.0).expect("it opens");
    let error = open(&dir.0).err().expect("it is refused").to_string();
    assert!(
        error.contains(&format!("process id {}", std::process::id())),
        "{error}"
    );
}

#[tokio::test]
async fn a_crash_between_any_two_steps_loses_nothing() {
    let dir = Dir::new("crash");
    let server = open(&dir.0).expect("it opens");
    let api = config_maps(&server.client("default"));
    let owner = api
        .create(&PostParams::default(), &config_map("owner", ""))
        .await
        .expect("created");
    let mut child = config_map("owned", "");
    child.metadata.owner_references = owner.owner_ref(&()).map(|o| vec![o]);
    api.create(&PostParams::default(), &child)
        .await
        .expect("created");
    api.create(&PostParams::default(), &config_map("kept", "1"))
        .await
        .expect("created");

    // What a kill leaves: a half-written temporary file; an owner gone, what it owned not yet.
    let crashed = Dir::new("crashed");
    copy(&dir.0, &crashed.0);
    let folder = crashed.0.join("configmaps/default");
    fs::write(folder.join(".write.tmp"), "metadata: {na").expect("a file");
    fs::write(crashed.0.join(".write.tmp"), "12").expect("a file");
    fs::remove_file(folder.join("owner.yaml")).expect("it was there");
    let server = open(&crashed.0).expect("it opens");
    let api = config_maps(&server.client("default"));
    let names: Vec<_> = api
        .list(&kube::api::ListParams::default())
        .await
        .expect("a list")
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["kept"]);
    assert!(!folder.join(".write.tmp").exists());
}

#[tokio::test]
async fn a_corrupt_file_is_named_and_left_alone() {
    let dir = Dir::new("corrupt");
    let file = dir.0.join("secrets/default/a.yaml");
    fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
    fs::write(dir.0.join("resource-version"), "7\n").expect("a file");
    let content = "data: {k: c2VjcmV0\n  : [";
    fs::write(&file, content).expect("a file");
    let error = open(&dir.0).err().expect("it is refused").to_string();
    assert!(
        error.contains("secrets/default/a.yaml") && !error.contains("c2VjcmV0"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&file).expect("it is there"), content);
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let dir = Dir::new("full");
    let server = open(&dir.0).expect("it opens");
    let api = config_maps(&server.client("default"));
    api.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .expect("created");
    // A file where the directory was: neither writing nor removing works now.
    let folder = dir.0.join("configmaps");
    fs::rename(&folder, dir.0.join("aside")).expect("moved");
    fs::write(&folder, "").expect("a file");
    let version = server.resource_version();
    let changed = api
        .replace("a", &PostParams::default(), &config_map("a", "2"))
        .await;
    assert!(matches!(changed, Err(kube::Error::Api(status)) if status.code == 500));
    let deleted = api.delete("a", &DeleteParams::default()).await;
    assert!(matches!(deleted, Err(kube::Error::Api(status)) if status.code == 500));
    let still = api.get("a").await.expect("still there");
    assert_eq!(still.data, config_map("a", "1").data);
    assert_eq!(server.resource_version(), version);
}

#[tokio::test]
async fn very_long_names_have_files_too() {
    let dir = Dir::new("long");
    let names = ["x".repeat(253), format!("{}y", "x".repeat(252))];
    let server = open(&dir.0).expect("it opens");
    let client = server.client("default");
    let api = config_maps(&client);
    for name in &names {
        api.create(&PostParams::default(), &config_map(name, "1"))
            .await
            .expect("created");
    }
    drop((api, client, server));
    let server = reopen(&dir.0).await;
    let api = config_maps(&server.client("default"));
    for name in &names {
        assert_eq!(&api.get(name).await.expect("there").name_any(), name);
    }
}
