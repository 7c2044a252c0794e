//! Temporary folders that are gone when the test is, however it ends.

use super::janitor;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Set to anything, this keeps the folders (logs, audit log, kubeconfigs) for a look afterwards.
pub const KEEP: &str = "CHANCERY_TEST_KEEP";

/// A folder of one's own, readable by nobody else, since keys and tokens lie in it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(purpose: &str) -> Scratch {
        Scratch::inside(&std::env::temp_dir(), purpose)
    }

    /// In a folder that is given: for what is to be renamed later, which a rename can do only
    /// within one file system.
    pub fn inside(parent: &Path, purpose: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("chancery-test-{purpose}-{}-{number}", std::process::id());
            let path = parent.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    janitor::remove_at_exit(&path);
                    return Scratch { path };
                }
                // Left by a process that had this id before us.
                Err(taken) if taken.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("can not make the folder {}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("can not write {}: {error}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if kept() && self.path.exists() {
            eprintln!("kept, as {KEEP} is set: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

pub fn kept() -> bool {
    std::env::var_os(KEEP).is_some()
}
