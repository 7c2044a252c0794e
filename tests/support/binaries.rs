//! Where the programs are that the tests run: Kubernetes, etcd, Helm and the verifier.

use super::go_build::{self, GoModule};
use std::path::PathBuf;
use std::sync::LazyLock;

/// The folder that people have who use envtest. What it holds is used as it is.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The programs of the control plane.
pub struct Binaries {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kubectl: PathBuf,
    pub kube_controller_manager: PathBuf,
    /// The version of Kubernetes, if we built it: `v1.N.P`.
    pub version: Option<String>,
}

impl Binaries {
    /// Those of `KUBEBUILDER_ASSETS` if it holds kube-apiserver, etcd and kubectl; else they are
    /// built. envtest has no kube-controller-manager, so that one is built unless it lies there.
    pub fn get() -> &'static Binaries {
        static BINARIES: LazyLock<Binaries> =
            LazyLock::new(|| Binaries::from_assets().unwrap_or_else(Binaries::built));
        &BINARIES
    }

    fn from_assets() -> Option<Binaries> {
        let folder = PathBuf::from(std::env::var_os(ASSETS)?);
        let there = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        Some(Binaries {
            etcd: there("etcd")?,
            kube_apiserver: there("kube-apiserver")?,
            kubectl: there("kubectl")?,
            kube_controller_manager: there("kube-controller-manager")
                .unwrap_or_else(|| Binaries::built().kube_controller_manager),
            version: None,
        })
    }

    fn built() -> Binaries {
        let version = kubernetes_version();
        let folder = GoModule {
            folder: "control-plane",
            target: "tool",
            ldflags: ldflags(&version),
            renames: &[("server", "etcd")],
        }
        .built();
        Binaries {
            etcd: folder.join("etcd"),
            kube_apiserver: folder.join("kube-apiserver"),
            kubectl: folder.join("kubectl"),
            kube_controller_manager: folder.join("kube-controller-manager"),
            version: Some(version),
        }
    }
}

/// Helm, built when it is first asked for.
pub fn helm() -> PathBuf {
    static HELM: LazyLock<PathBuf> = LazyLock::new(|| {
        let module = GoModule {
            folder: "helm",
            target: "tool",
            ldflags: "-s -w".to_owned(),
            renames: &[],
        };
        module.built().join("helm")
    });
    HELM.clone()
}

/// The verifier in another language (`tests/verifier`), built when it is first asked for.
pub fn verifier() -> PathBuf {
    static VERIFIER: LazyLock<PathBuf> = LazyLock::new(|| {
        let module = GoModule {
            folder: "verifier",
            target: ".",
            ldflags: "-s -w".to_owned(),
            renames: &[],
        };
        module.built().join("verifier")
    });
    VERIFIER.clone()
}

/// The folder with `age` and `age-keygen`, built when they are first asked for: what we seal has to be
/// opened by an implementation that is not ours.
pub fn age() -> PathBuf {
    static AGE: LazyLock<PathBuf> = LazyLock::new(|| {
        let module = GoModule {
            folder: "age",
            target: "tool",
            ldflags: "-s -w".to_owned(),
            renames: &[],
        };
        module.built()
    });
    AGE.clone()
}

/// The version that `tests/control-plane/go.mod` requires. (That of its parts follows from it.)
fn kubernetes_version() -> String {
    let file = go_build::tests().join("control-plane/go.mod");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("can not read {}: {error}", file.display()));
    text.lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .and_then(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .unwrap_or_else(|| panic!("{} requires no k8s.io/kubernetes", file.display()))
}

/// Without these the servers call themselves v0.0.0; `-s -w` leaves out what only a debugger reads.
fn ldflags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} \
         -X {package}.gitMinor={minor}"
    )
}
