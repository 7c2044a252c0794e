//! Objects as files: `<state>/<plural>/<namespace or _cluster>/<name>.yaml`, readable by their
//! owner only.
//!
//! A file is written beside its place and renamed into it, so that whoever is killed at any
//! moment leaves either the old file or the new one. Files are flushed to the disk before the
//! rename; a directory is not, so that what a power cut can undo is the last write, never its
//! wholeness.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde_json::Value;

use super::OpenError;

const CLUSTER: &str = "_cluster";
const VERSION_FILE: &str = "resource-version";
const LOCK_FILE: &str = "lock";
/// How many versions are taken at a time, so that not every write is two.
const VERSIONS_AT_ONCE: u64 = 1000;
/// Longest name that is a file name as it stands: file systems allow 255 bytes.
const NAME_MAX: usize = 240;

/// The directory, locked for this process.
pub struct Disk {
    root: PathBuf,
    /// Versions up to here may have been given out.
    reserved: u64,
    _lock: File,
}

/// What a directory held.
pub struct Loaded {
    /// (directory of the kind, object).
    pub objects: Vec<(String, Value)>,
    /// No version up to here may be given out again.
    pub version: u64,
}

impl Disk {
    /// Takes the directory (made if missing) for this process and reads what it holds, of the
    /// kinds in `plurals`. What belongs to other kinds stays as it is.
    pub fn open(root: &Path, plurals: &[String]) -> Result<(Self, Loaded), OpenError> {
        let at = |path: &Path, why: io::Error| OpenError::Io {
            path: path.to_owned(),
            why,
        };
        own_root(root)?;
        let lock = lock(root)?;
        let mut loaded = Loaded {
            objects: Vec::new(),
            version: 0,
        };
        remove_leftovers(root).map_err(|why| at(root, why))?;
        let version_file = root.join(VERSION_FILE);
        match fs::read_to_string(&version_file) {
            Ok(text) => {
                loaded.version = text.trim().parse().map_err(|_| OpenError::Corrupt {
                    path: version_file.clone(),
                    why: "it should hold one number".into(),
                })?;
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(at(&version_file, why)),
        }
        for plural in plurals {
            let kind_dir = root.join(plural);
            for namespace in children(&kind_dir).map_err(|why| at(&kind_dir, why))? {
                if !namespace.is_dir() {
                    continue;
                }
                remove_leftovers(&namespace).map_err(|why| at(&namespace, why))?;
                for file in children(&namespace).map_err(|why| at(&namespace, why))? {
                    if file.extension().is_some_and(|e| e == "yaml") {
                        loaded.objects.push((plural.clone(), read(&file)?));
                    }
                }
            }
        }
        let disk = Self {
            root: root.to_owned(),
            reserved: loaded.version,
            _lock: lock,
        };
        Ok((disk, loaded))
    }

    /// Makes sure that `version` is never given out again after a restart.
    pub fn reserve(&mut self, version: u64) -> io::Result<()> {
        if version > self.reserved {
            let upto = version + VERSIONS_AT_ONCE;
            write_private(&self.root, VERSION_FILE, format!("{upto}\n").as_bytes())?;
            self.reserved = upto;
        }
        Ok(())
    }

    /// Writes an object, whole or not at all.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, object: &Value) -> io::Result<()> {
        let dir = self.dir(plural, namespace);
        private_dir(&self.root.join(plural))?;
        private_dir(&dir)?;
        write_private(&dir, &file_name(name), to_yaml(object)?.as_bytes())
    }

    /// Removes an object.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir(plural, namespace).join(file_name(name))) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    fn dir(&self, plural: &str, namespace: &str) -> PathBuf {
        let namespace = if namespace.is_empty() {
            CLUSTER
        } else {
            namespace
        };
        self.root.join(plural).join(namespace)
    }
}

/// Names are DNS subdomains, so that they are file names too, unless they are very long.
fn file_name(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return format!("{name}.yaml");
    }
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut hex = String::new();
    for byte in &hash.as_ref()[..16] {
        let _ = write!(hex, "{byte:02x}");
    }
    format!("{}~{hex}.yaml", &name[..NAME_MAX - 40])
}

fn to_yaml(object: &Value) -> io::Result<String> {
    let yaml = serde_saphyr::to_string(object).map_err(io::Error::other)?;
    // JSON is YAML too: should any text not survive the nicer form, it is written as JSON.
    let same = serde_saphyr::from_str::<Value>(&yaml).is_ok_and(|back| back == *object);
    if same {
        Ok(yaml)
    } else {
        serde_json::to_string_pretty(object).map_err(io::Error::other)
    }
}

fn read(path: &Path) -> Result<Value, OpenError> {
    let corrupt = |why: String| OpenError::Corrupt {
        path: path.to_owned(),
        why,
    };
    let text = fs::read_to_string(path).map_err(|why| OpenError::Io {
        path: path.to_owned(),
        why,
    })?;
    // The parser's own message would quote the file, which may be a Secret.
    let object: Value = serde_json::from_str(&text)
        .ok()
        .or_else(|| serde_saphyr::from_str(&text).ok())
        .ok_or_else(|| corrupt("it is not YAML".into()))?;
    if object["metadata"]["name"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        return Err(corrupt("it holds no object with a name".into()));
    }
    Ok(object)
}

/// The entries of a directory in the order of their names; none if it does not exist.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<Vec<_>>>()?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(why) => return Err(why),
    };
    paths.sort();
    Ok(paths)
}

const TEMPORARY: &str = ".write.tmp";

/// A write that was cut short leaves a temporary file that nobody was told of.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(TEMPORARY)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn write_private(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY);
    remove_leftovers(dir)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))
}

/// Sees to it that the directory is one for us alone: new, empty, or with our state. Whoever
/// names another one by mistake (`/tmp`, a home) would have secrets strewn over it. The mode of a
/// directory that was there is left: it is not ours to lock others out of, and what we put into
/// it is private by itself.
fn own_root(root: &Path) -> Result<(), OpenError> {
    let at = |why: io::Error| OpenError::Io {
        path: root.to_owned(),
        why,
    };
    let foreign = |why: &'static str| OpenError::Foreign {
        path: root.to_owned(),
        why,
    };
    let meta = match fs::metadata(root) {
        Ok(meta) => meta,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return private_dir(root).map_err(at);
        }
        Err(why) => return Err(at(why)),
    };
    // The version is written before any object: without it there is at most what a start leaves
    // that was killed early. A lock alone proves nothing, as others call theirs so too.
    let names = children(root).map_err(at)?;
    let has = |file: &str| names.iter().any(|path| path.ends_with(file));
    let ours = |path: &PathBuf| path.ends_with(LOCK_FILE) || path.ends_with(TEMPORARY);
    if !has(VERSION_FILE) && !names.iter().all(ours) {
        return Err(foreign("holds other files"));
    }
    // Others could put links in the place of our directories.
    if meta.permissions().mode() & 0o002 != 0 {
        return Err(foreign("can be written by everybody"));
    }
    Ok(())
}

/// A directory that only its owner can read: made so, or tightened.
fn private_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Two servers on one directory would each undo what the other wrote.
fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join(LOCK_FILE);
    let io_error = |why: io::Error| OpenError::Io {
        path: path.clone(),
        why,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(OpenError::Locked {
                path: root.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(why)) => return Err(io_error(why)),
    }
    file.set_len(0).map_err(io_error)?;
    file.rewind().map_err(io_error)?;
    writeln!(file, "{}", std::process::id()).map_err(io_error)?;
    Ok(file)
}
