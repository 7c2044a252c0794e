//! Several replicas: one leads, however the others before it ended. Each replica is a
//! `chancery run` with an account of its own, by which the audit log tells them apart.

use std::time::Duration;

use chancery::clock;
use jiff::Timestamp;
use serde_json::Value;

use crate::release::{LIMIT, Release};
use crate::support::{Proc, Signal, eventually, free_port, http};

/// What is promised is 3 s after SIGTERM and 20 s after SIGKILL. Machines that do much else at the
/// same time get five times as long.
const AFTER_TERM: Duration = Duration::from_secs(15);
const AFTER_KILL: Duration = Duration::from_secs(100);

struct Replica {
    user: String,
    process: Proc,
    admin_port: u16,
}

impl Replica {
    fn start(release: &Release, name: &str) -> Self {
        let (cluster, namespace) = (release.cluster, &release.name);
        cluster.kubectl_ok(&["create", "serviceaccount", name, "-n", namespace]);
        cluster.kubectl_ok(&[
            "create",
            "clusterrolebinding",
            &format!("{namespace}-{name}"),
            "--clusterrole=cluster-admin",
            &format!("--serviceaccount={namespace}:{name}"),
        ]);
        let account = cluster.kubeconfig_for_service_account(namespace, name);
        let admin_port = free_port();
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            process: release.start_process(&account, free_port(), admin_port, &[]),
            admin_port,
        }
    }

    fn get(&self, path: &str) -> std::io::Result<http::Answer> {
        http::get(&format!("http://127.0.0.1:{}/{path}", self.admin_port))
    }

    /// What its gauge says.
    fn leads(&self) -> Option<bool> {
        let metrics = self.get("metrics").ok()?.text();
        let gauge = metrics
            .lines()
            .find_map(|line| line.strip_prefix("chancery_leader "));
        Some(gauge.expect("there is the gauge") == "1")
    }

    fn wait_until_it_leads(&self) {
        eventually("it leads", AFTER_KILL, || match self.leads() {
            Some(true) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.process.output())),
        });
    }

    fn wait_ready(&self) {
        eventually("it is ready", LIMIT, || match self.get("readyz?verbose") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}\n{}", self.process.output())),
        });
    }

    fn end(self, release: &mut Release) {
        self.process.signal(Signal::Kill);
        self.process.wait_exit(LIMIT);
        release.printed(self.process.output());
    }
}

fn lease(release: &Release) -> Value {
    release.get("lease", &release.name, "chancery-leader")["spec"].clone()
}

fn holder(release: &Release) -> String {
    let holder = lease(release)["holderIdentity"].clone();
    holder.as_str().unwrap_or_default().to_owned()
}

fn now() -> Timestamp {
    clock::system().now()
}

fn time(of: &Value) -> Timestamp {
    let text = of.as_str().expect("a time");
    text.parse().expect("a time")
}

/// How long after `since` somebody else than `before` took the lease, by the Lease itself.
fn taken_over(release: &Release, before: &str, since: Timestamp, limit: Duration) -> f64 {
    let lease = eventually("another has the lease", limit + LIMIT, || {
        let lease = lease(release);
        match lease["holderIdentity"].as_str().unwrap_or_default() {
            "" => Err("nobody has it".to_owned()),
            holder if holder == before => Err(format!("{holder} has it")),
            _ => Ok(lease),
        }
    });
    let took = time(&lease["acquireTime"]).duration_since(since);
    let took = Duration::try_from(took).expect("after it was given up");
    assert!(took <= limit, "{took:?}, and at most {limit:?}");
    took.as_secs_f64()
}

fn ring(release: &Release, name: &str) {
    release.ring(name, "algorithm: ES256");
    release.wait_ready("signingkey", &release.name, name);
}

/// By SIGTERM, by SIGKILL; and what a person does to the Lease.
#[test]
fn a_standby_takes_over() {
    let mut release = Release::prepared("takeover");
    let a = Replica::start(&release, "a");
    a.wait_until_it_leads();
    ring(&release, "first");
    let b = Replica::start(&release, "b");
    b.wait_ready();
    assert_eq!((a.leads(), b.leads()), (Some(true), Some(false)));

    let before = holder(&release);
    let since = now();
    a.process.signal(Signal::Term);
    let took = taken_over(&release, &before, since, AFTER_TERM);
    println!("after SIGTERM: {took:.2} s");
    assert!(a.process.wait_exit(LIMIT).success());
    b.wait_until_it_leads();
    ring(&release, "second");

    let c = Replica::start(&release, "c");
    c.wait_ready();
    let before = holder(&release);
    let since = now();
    b.process.signal(Signal::Kill);
    let took = taken_over(&release, &before, since, AFTER_KILL);
    println!("after SIGKILL: {took:.2} s");
    c.wait_until_it_leads();
    ring(&release, "third");
    assert_eq!(lease(&release)["leaseTransitions"], 2);

    let d = Replica::start(&release, "d");
    d.wait_ready();
    let before = holder(&release);
    release.forget_leader();
    eventually("the leader has made it again", LIMIT, || {
        assert_eq!((c.leads(), d.leads()), (Some(true), Some(false)));
        let holder = holder(&release);
        (holder == before).then_some(()).ok_or(holder)
    });
    ring(&release, "fourth");
    for replica in [a, b, c, d] {
        replica.end(&mut release);
    }
}

/// A process that was stopped knows nothing of what happened meanwhile: it must not write what it
/// was about to.
#[test]
fn a_stopped_leader_writes_nothing_when_it_goes_on() {
    let mut release = Release::prepared("stopped");
    let a = Replica::start(&release, "a");
    a.wait_until_it_leads();
    let b = Replica::start(&release, "b");
    // Stopped amid its work: one of these is made, and the others are being made.
    let rings = ["r0", "r1", "r2", "r3", "r4", "r5"];
    for name in rings {
        release.ring(name, "algorithm: RS256, rsaKeySize: 4096");
    }
    eventually("the first key", LIMIT, || {
        let secrets = release.list("secrets", &release.name);
        (!secrets.is_empty())
            .then_some(())
            .ok_or(a.process.output())
    });
    let before = holder(&release);
    a.process.signal(Signal::Stop);
    let stopped = now();
    let took = taken_over(&release, &before, stopped, AFTER_KILL);
    println!("after SIGSTOP: {took:.2} s");
    b.wait_until_it_leads();
    for name in rings {
        release.wait_ready("signingkey", &release.name, name);
    }
    ring(&release, "meanwhile");
    // Longer than any lease lasts, and any call.
    let rest = Duration::from_secs(35).saturating_sub(elapsed(stopped));
    std::thread::sleep(rest);

    let log = a.process.output().len();
    let resumed = now();
    a.process.signal(Signal::Cont);
    let first = eventually("its gauge", LIMIT, || a.leads().ok_or("no answer"));
    assert!(!first, "it knows at once");
    eventually("it sees who leads", LIMIT, || {
        let since = a.process.output().split_off(log);
        let told = since.contains("another process leads");
        told.then_some(()).ok_or(since)
    });
    // Something to do, which it sees too, and the new leader does.
    ring(&release, "afterwards");
    let renewed = lease(&release)["renewTime"].clone();
    eventually("the new leader renews", LIMIT, || {
        let now = lease(&release)["renewTime"].clone();
        (time(&now).duration_since(time(&renewed)).as_secs() >= 9)
            .then_some(())
            .ok_or(now)
    });
    assert_eq!((a.leads(), b.leads()), (Some(false), Some(true)));
    let mut seen = 0;
    for event in release.cluster.audit_events() {
        let verb = event["verb"].as_str().unwrap_or_default();
        if event["user"]["username"] != a.user.as_str()
            || time(&event["requestReceivedTimestamp"]) < resumed
        {
            continue;
        }
        seen += 1;
        let write = ["create", "update", "patch", "delete", "deletecollection"].contains(&verb);
        assert!(!write, "it wrote: {event}\n{}", a.process.output());
    }
    assert!(seen > 0, "the audit log tells of it at all");
    let log = a.process.output().split_off(log);
    let left = log.matches("left to the process that leads").count();
    println!(
        "{seen} requests after SIGCONT, no write among them; {left} writes left to the leader"
    );

    // And it can lead again.
    let before = holder(&release);
    let since = now();
    b.process.signal(Signal::Term);
    let took = taken_over(&release, &before, since, AFTER_TERM);
    println!("back to the first after SIGTERM: {took:.2} s");
    a.wait_until_it_leads();
    ring(&release, "last");
    let secrets = release.list("secrets", &release.name);
    assert_eq!(secrets.len(), rings.len() + 3, "one key a ring");
    for replica in [a, b] {
        replica.end(&mut release);
    }
}

fn elapsed(since: Timestamp) -> Duration {
    Duration::try_from(now().duration_since(since)).unwrap_or_default()
}
