//! A private file for each client, from which curl reads the secret, so that the line that a
//! person copies has no secret in it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// File systems allow names of 255 bytes, and a temporary one is longer by some.
const NAME_MAX: usize = 230;

/// The directory with the files.
pub struct CurlFiles {
    dir: PathBuf,
}

impl CurlFiles {
    /// Those under the state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            dir: state.join("curl"),
        }
    }

    /// The file of a client. A very long id is cut: it is a name for people, no more.
    pub fn path(&self, client_id: &str) -> PathBuf {
        let short: String = client_id.chars().take(NAME_MAX).collect();
        self.dir.join(format!("{short}.conf"))
    }

    /// The file with a client's sealed secret.
    pub fn sealed_path(&self, client_id: &str) -> PathBuf {
        self.path(client_id).with_extension("age")
    }

    /// Makes that file hold this; whether it had to be written.
    pub fn write_sealed(&self, client_id: &str, sealed: &str) -> io::Result<bool> {
        self.put(&self.sealed_path(client_id), sealed)
    }

    /// Makes a client's file hold this secret; whether it had to be written.
    pub fn write(&self, client_id: &str, secret: &str) -> io::Result<bool> {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let text = Zeroizing::new(format!(
            "# The credential of {client_id}, for curl --config. Keep it to yourself.\nuser = \"{}:{}\"\n",
            quote(client_id),
            quote(secret)
        ));
        self.put(&self.path(client_id), &text)
    }

    fn put(&self, path: &Path, text: &str) -> io::Result<bool> {
        if fs::read(path).is_ok_and(|now| now == text.as_bytes()) && is_private(path) {
            return Ok(false);
        }
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
            _ => {}
        }
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        // Renamed into place: a curl that starts now reads the old file or the new one.
        let beside = path.with_added_extension("new");
        match fs::remove_file(&beside) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)?;
        Ok(true)
    }

    /// Removes the files of all clients but these.
    pub fn keep(&self, client_ids: &BTreeSet<String>) {
        let of = |id: &String| [self.path(id), self.sealed_path(id)];
        let kept: BTreeSet<PathBuf> = client_ids.iter().flat_map(of).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if !kept.contains(&path) {
                // What can not be removed holds a secret that no longer works.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn is_private(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o777 == 0o600)
}

/// The line that gets a token.
pub fn line(config: &Path, token_url: &str) -> String {
    format!(
        "curl -sS --config {} --data grant_type=client_credentials {}",
        quoted(&config.display().to_string()),
        quoted(token_url)
    )
}

/// The same with a secret that is sealed: whoever has the key fills it in.
pub fn sealed_line(client_id: &str, sealed: &Path, token_url: &str) -> String {
    format!(
        "curl -sS --user \"{client_id}:$(age --decrypt -i YOUR-KEY {})\" --data grant_type=client_credentials {}",
        quoted(&sealed.display().to_string()),
        quoted(token_url)
    )
}

/// For a shell: as it is if nothing in it means anything to one, else in quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell_where_they_need_it() {
        let url = "http://127.0.0.1:8080/oauth/token";
        assert_eq!(
            line(Path::new(".chancery/curl/acme.orders.conf"), url),
            "curl -sS --config .chancery/curl/acme.orders.conf --data grant_type=client_credentials http://127.0.0.1:8080/oauth/token"
        );
        assert_eq!(quoted("/tmp/my state/it's"), r"'/tmp/my state/it'\''s'");
        assert_eq!(quoted("http://[::1]:80/"), "'http://[::1]:80/'");
    }
}
