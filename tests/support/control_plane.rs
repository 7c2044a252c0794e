//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, as processes
//! on loopback ports, from nothing to ready in some seconds.
//!
//! There is no kubelet: no pod runs. Everything else is real, RBAC, admission, CEL, ServiceAccount
//! tokens, garbage collection and the audit log among it.

mod commands;
mod files;
mod servers;

use super::process::{Proc, Signal};
use super::{Binaries, free_port, scratch::Scratch, wait};
use files::Files;
use servers::Ports;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// From the start of a server until it must be ready. An idle machine needs 3 s for all of them.
const READY: Duration = Duration::from_secs(90);

/// How long kube-apiserver may take to stop: it lets requests under way finish first.
const STOP: Duration = Duration::from_secs(75);

/// How often to try again when somebody else took a port between its choice and its use.
const ATTEMPTS: u32 = 5;

/// What a control plane consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
}

impl Component {
    pub const ALL: [Component; 3] = [
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
        }
    }
}

/// A running control plane. Dropping it stops it and removes all that it wrote.
pub struct ControlPlane {
    // The fields drop in this order: clients before what they talk to, and the files last.
    controller_manager: Mutex<Option<Proc>>,
    api_server: Mutex<Option<Proc>>,
    etcd: Proc,
    binaries: &'static Binaries,
    ports: Ports,
    files: Files,
    scratch: Scratch,
}

impl ControlPlane {
    /// The one that all tests of this test binary share: each takes a [`namespace`] of its own.
    /// It is gone when the process is. If it does not start, the tests fail at once, all of them.
    ///
    /// [`namespace`]: ControlPlane::namespace
    pub fn shared() -> &'static ControlPlane {
        static SHARED: LazyLock<Option<ControlPlane>> =
            LazyLock::new(|| std::panic::catch_unwind(ControlPlane::start).ok());
        SHARED
            .as_ref()
            .expect("the shared control plane did not start: the test that tried first tells why")
    }

    /// One of one's own, for a test that stops the API server or changes the whole cluster.
    pub fn start() -> ControlPlane {
        for attempt in 1.. {
            match ControlPlane::try_start() {
                Ok(control_plane) => return control_plane,
                Err(why) if attempt < ATTEMPTS && why.contains("address already in use") => {}
                Err(why) => panic!("the control plane did not start: {why}"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    fn try_start() -> Result<ControlPlane, String> {
        let binaries = Binaries::get();
        let scratch = Scratch::new("control-plane");
        let ports = Ports {
            etcd_clients: free_port(),
            etcd_peers: free_port(),
            api_server: free_port(),
        };
        let files = Files::write(&scratch, &ports);
        let etcd = servers::etcd(binaries, &scratch, &ports);
        let control_plane = ControlPlane {
            controller_manager: Mutex::new(None),
            api_server: Mutex::new(None),
            etcd,
            binaries,
            ports,
            files,
            scratch,
        };
        // Not waiting for etcd first: kube-apiserver does so itself.
        control_plane.launch_api_server()?;
        control_plane.launch_controller_manager()?;
        Ok(control_plane)
    }

    /// Stops kube-apiserver as a node that shuts down would: an outage, until
    /// [`start_api_server`](ControlPlane::start_api_server).
    pub fn stop_api_server(&self) {
        let process = lock(&self.api_server).take();
        let process = process.expect("the API server runs, else it can not be stopped");
        process.signal(Signal::Term);
        process.wait_exit(STOP);
    }

    /// Ends kube-apiserver at once, as a power cut would.
    pub fn kill_api_server(&self) {
        drop(lock(&self.api_server).take());
    }

    /// Starts kube-apiserver again, on the same port, with the same keys and data, and waits until
    /// it is ready.
    pub fn start_api_server(&self) {
        if let Err(why) = self.launch_api_server() {
            panic!("the API server did not start again: {why}");
        }
    }

    /// Freezes kube-apiserver: connections stay open, and nothing is answered, until
    /// [`resume_api_server`](ControlPlane::resume_api_server).
    pub fn pause_api_server(&self) {
        self.signal_api_server(Signal::Stop);
    }

    pub fn resume_api_server(&self) {
        self.signal_api_server(Signal::Cont);
    }

    fn signal_api_server(&self, signal: Signal) {
        lock(&self.api_server)
            .as_ref()
            .expect("the API server runs, else it can not be sent a signal")
            .signal(signal);
    }

    /// What a component has logged so far.
    pub fn log_of(&self, component: Component) -> String {
        let name = component.name();
        ["stdout", "stderr"]
            .map(|stream| self.scratch.path().join(format!("{name}.{stream}")))
            .iter()
            .filter_map(|file| std::fs::read(file).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    fn launch_api_server(&self) -> Result<(), String> {
        let process = servers::api_server(self.binaries, &self.scratch, &self.ports, &self.files);
        *lock(&self.api_server) = Some(process);
        self.wait_for("/readyz of kube-apiserver", Component::ApiServer, || {
            // First what costs nothing: a kubectl for each look would slow down what it waits for.
            let address = (Ipv4Addr::LOCALHOST, self.ports.api_server);
            TcpStream::connect(address).map_err(|error| error.to_string())?;
            self.files.learn_ca()?;
            let answer = self.kubectl(&["get", "--raw=/readyz"]);
            answer.success().then_some(()).ok_or(answer.stderr)
        })
    }

    fn launch_controller_manager(&self) -> Result<(), String> {
        let process = servers::controller_manager(self.binaries, &self.scratch, &self.files);
        *lock(&self.controller_manager) = Some(process);
        let component = Component::ControllerManager;
        self.wait_for("the default ServiceAccount", component, || {
            let answer = self.kubectl(&["get", "serviceaccount", "default", "-n", "default"]);
            answer.success().then_some(()).ok_or(answer.stderr)
        })
    }

    /// Waits until `look` is content, and gives up early when the component, or etcd beneath it,
    /// has ended.
    fn wait_for(
        &self,
        what: &str,
        component: Component,
        mut look: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + READY;
        loop {
            let Err(last) = look() else { return Ok(()) };
            let dead = [Component::Etcd, component]
                .into_iter()
                .find(|&component| !self.runs(component));
            if let Some(dead) = dead {
                let log = self.end_of_log(dead);
                return Err(format!("{} ended. Its log ends:\n{log}", dead.name()));
            }
            if Instant::now() >= deadline {
                let log = self.end_of_log(component);
                return Err(format!(
                    "waited {READY:?} in vain for {what}. The last look said: {last}. \
                     The log of {} ends:\n{log}",
                    component.name()
                ));
            }
            std::thread::sleep(wait::INTERVAL);
        }
    }

    fn runs(&self, component: Component) -> bool {
        let slot = match component {
            Component::Etcd => return self.etcd.is_running(),
            Component::ApiServer => &self.api_server,
            Component::ControllerManager => &self.controller_manager,
        };
        lock(slot).as_ref().is_some_and(Proc::is_running)
    }

    fn end_of_log(&self, component: Component) -> String {
        let log = self.log_of(component);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The folder where everything of this control plane lies.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
