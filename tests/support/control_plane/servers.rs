//! The command lines of the three servers.

use super::{Binaries, Component, Proc, Scratch, files::Files};
use std::path::Path;
use std::process::Command;

/// The loopback ports of one control plane.
pub struct Ports {
    pub etcd_clients: u16,
    pub etcd_peers: u16,
    pub api_server: u16,
}

/// What ServiceAccount tokens have as `iss`: the value that kubeadm gives clusters.
const SERVICE_ACCOUNT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub fn etcd(binaries: &Binaries, scratch: &Scratch, ports: &Ports) -> Proc {
    let clients = format!("http://127.0.0.1:{}", ports.etcd_clients);
    let peers = format!("http://127.0.0.1:{}", ports.etcd_peers);
    let mut etcd = command(&binaries.etcd, scratch);
    etcd.arg("--data-dir")
        .arg(scratch.path().join("etcd"))
        .args(["--listen-client-urls", &clients])
        .args(["--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        // Nobody needs the data after a power cut, and the disk is the slowest part of it all.
        .arg("--unsafe-no-fsync")
        .args(["--log-level", "warn"]);
    Proc::start(Component::Etcd.name(), etcd, scratch.path())
}

pub fn api_server(binaries: &Binaries, scratch: &Scratch, ports: &Ports, files: &Files) -> Proc {
    let mut server = command(&binaries.kube_apiserver, scratch);
    server
        .arg(format!(
            "--etcd-servers=http://127.0.0.1:{}",
            ports.etcd_clients
        ))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--secure-port={}", ports.api_server))
        .arg(path("--cert-dir", &files.certificates))
        // There is one API server, on loopback, and endpoints must not be there.
        .arg("--endpoint-reconciler-type=none")
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        .arg("--authorization-mode=RBAC")
        // As OpenShift has it: to set an owner on an object that exists takes the right to delete it.
        .arg("--enable-admission-plugins=OwnerReferencesPermissionEnforcement")
        .arg(path("--token-auth-file", &files.tokens))
        .arg(format!("--service-account-issuer={SERVICE_ACCOUNT_ISSUER}"))
        .arg(path(
            "--service-account-key-file",
            &files.service_account_key,
        ))
        .arg(path(
            "--service-account-signing-key-file",
            &files.service_account_key,
        ))
        .arg(path("--audit-policy-file", &files.audit_policy))
        .arg(path("--audit-log-path", &files.audit_log))
        // In MB; at the default of 100 the log is rotated, and a test would read half of it.
        .arg("--audit-log-maxsize=100000")
        // When it stops it ends the watches, which it would otherwise wait for in vain, a minute.
        .arg("--shutdown-watch-termination-grace-period=2s")
        .arg("--profiling=false");
    Proc::start(Component::ApiServer.name(), server, scratch.path())
}

pub fn controller_manager(binaries: &Binaries, scratch: &Scratch, files: &Files) -> Proc {
    let mut manager = command(&binaries.kube_controller_manager, scratch);
    manager
        .arg(path("--kubeconfig", &files.controller_manager_kubeconfig))
        .arg(path(
            "--service-account-private-key-file",
            &files.service_account_key,
        ))
        .arg(path("--root-ca-file", &files.ca))
        .args([
            "--leader-elect=false",
            "--secure-port=0",
            "--profiling=false",
        ])
        // The defaults, 20 and 30 a second, spare a cluster that is shared. This one is not.
        .args(["--kube-api-qps=200", "--kube-api-burst=400"]);
    Proc::start(Component::ControllerManager.name(), manager, scratch.path())
}

/// A command that sees nothing of the person's own settings: a proxy variable, say, or a
/// kubeconfig.
fn command(program: &Path, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", scratch.path())
        .current_dir(scratch.path());
    command
}

fn path(flag: &str, value: &Path) -> String {
    format!("{flag}={}", value.display())
}
