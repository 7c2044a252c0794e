//! Where a claimed credential goes: to stdout, or into a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::judge::Whose;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// `client_id: …` and `client_secret: …`, which is YAML too.
    Text,
    /// JSON, with `client_id` and `client_secret`.
    Json,
    /// `CLIENT_ID=…` and `CLIENT_SECRET=…`, for a shell or an env file.
    Env,
}

/// A client id with its secret.
pub struct Credential {
    pub client_id: String,
    pub client_secret: Zeroizing<String>,
}

impl Credential {
    fn form(&self, form: Form) -> Zeroizing<String> {
        let (id, secret) = (&self.client_id, self.client_secret.as_str());
        // Neither holds what would need quotes: ids and secrets have letters, digits, dots and dashes.
        Zeroizing::new(match form {
            Form::Text => format!("client_id: {id}\nclient_secret: {secret}\n"),
            Form::Json => format!("{:#}\n", json!({"client_id": id, "client_secret": secret})),
            Form::Env => format!("CLIENT_ID={id}\nCLIENT_SECRET={secret}\n"),
        })
    }
}

/// Where it goes.
pub enum Sink {
    Stdout,
    File(PathBuf, File),
}

impl Sink {
    /// A file is made now, so that what can not be written is not made at all.
    pub fn open(path: Option<PathBuf>) -> Result<Self, String> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let mut file = OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&path);
        match file {
            Ok(file) => Ok(Self::File(path, file)),
            Err(why) if why.kind() == ErrorKind::AlreadyExists => Err(format!(
                "--output-file {} is there already, and was left as it is: give another name",
                path.display()
            )),
            Err(why) => Err(format!(
                "--output-file {} can not be made: {why}",
                path.display()
            )),
        }
    }

    /// Takes an empty file away.
    pub fn discard(self) {
        if let Self::File(path, file) = self {
            drop(file);
            let _ = std::fs::remove_file(path);
        }
    }

    pub fn write(self, credential: &Credential, form: Form, whose: &Whose) -> Result<(), String> {
        let text = credential.form(form);
        let (place, written) = match self {
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                ("stdout".to_owned(), written)
            }
            Self::File(path, mut file) => {
                let written = file.write_all(text.as_bytes());
                let written = written.and_then(|()| file.sync_all());
                (path.display().to_string(), written)
            }
        };
        written.map_err(|why| {
            format!(
                "the client secret of {whose} was made, and could not be written to {place}: {why}. It is lost: rotate, and claim again"
            )
        })?;
        eprintln!(
            "The client secret of {whose} went to {place}, this once: it is kept nowhere. Lost means rotate, and claim again."
        );
        Ok(())
    }
}
