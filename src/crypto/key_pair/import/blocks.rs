//! PEM blocks as OpenSSL finds them in a document, and the one of them that holds a private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::ImportError;
use crate::crypto::key_pair::{der, pem};

/// How the base64 of a PEM document begins: base64 that was encoded once more.
const PEM_IN_BASE64: &[u8] = b"LS0tLS1CRUdJTi";

/// One PEM block: its name, and the lines in it.
pub struct Block<'a> {
    /// What stands after BEGIN and END.
    pub label: &'a [u8],
    lines: Vec<&'a [u8]>,
    /// The curve in an `EC PARAMETERS` block before it.
    pub curve: Option<Zeroizing<Vec<u8>>>,
}

impl Block<'_> {
    /// RFC 1421 puts headers before the text, which an empty line ends.
    fn headers(&self) -> usize {
        if self.lines.first().is_some_and(|line| line.contains(&b':')) {
            let blank = self.lines.iter().position(|line| line.is_empty());
            blank.unwrap_or(self.lines.len())
        } else {
            0
        }
    }

    fn encrypted(&self) -> bool {
        self.label == b"ENCRYPTED PRIVATE KEY"
            || self.lines[..self.headers()]
                .iter()
                .any(|line| line.starts_with(b"Proc-Type") && line.ends_with(b"ENCRYPTED"))
    }

    /// What the block's base64 says.
    pub fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let lines = &self.lines[self.headers()..];
        let len = lines.iter().map(|line| line.len()).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(len));
        let solid = |b: &&u8| !b.is_ascii_whitespace();
        text.extend(lines.iter().flat_map(|line| line.iter()).filter(solid));
        let mut der = Zeroizing::new(vec![0; len / 4 * 3 + 3]);
        let len = STANDARD.decode_slice(text.as_slice(), &mut der).ok()?;
        der.truncate(len);
        Some(der)
    }
}

/// The one block with a private key.
pub fn private_block(text: &[u8]) -> Result<Block<'_>, ImportError> {
    if text.len() > pem::MAX_LEN {
        return Err(ImportError::TooLong { bytes: text.len() });
    }
    if text.trim_ascii().is_empty() {
        return Err(ImportError::Empty);
    }
    if der::is_sequence(text) {
        return Err(ImportError::Der);
    }
    if text.trim_ascii().starts_with(PEM_IN_BASE64) {
        return Err(ImportError::EncodedTwice);
    }
    let mut keys: Vec<Block<'_>> = Vec::new();
    let (mut public, mut certificate, mut curve) = (false, false, None);
    for mut block in blocks(text)? {
        match block.label {
            b"EC PARAMETERS" => curve = block.decode(),
            b"CERTIFICATE" | b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" => certificate = true,
            label if label.ends_with(b"PUBLIC KEY") => public = true,
            label if label.ends_with(b"PRIVATE KEY") => {
                block.curve = curve.take();
                keys.push(block);
            }
            _ => {}
        }
    }
    let count = keys.len();
    match keys.pop() {
        Some(_) if count > 1 => Err(ImportError::Several { count }),
        Some(key) if key.encrypted() => Err(ImportError::Encrypted),
        Some(key) if key.label == b"OPENSSH PRIVATE KEY" => Err(ImportError::OpenSsh),
        Some(key) => Ok(key),
        None if public => Err(ImportError::PublicOnly),
        None if certificate => Err(ImportError::CertificateOnly),
        None => Err(ImportError::NotPem),
    }
}

/// The blocks in a document; what stands between them is for people.
fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, ImportError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for line in text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
        let named = |before: &[u8]| {
            line.strip_prefix(before)
                .and_then(|l| l.strip_suffix(b"-----"))
                .filter(|label| !label.contains(&b'-'))
        };
        if let Some(label) = named(b"-----BEGIN ") {
            if open.is_some() {
                return Err(ImportError::CutOff);
            }
            open = Some(Block {
                label,
                lines: Vec::new(),
                curve: None,
            });
        } else if let Some(mut block) = open.take() {
            match named(b"-----END ") {
                Some(label) if label == block.label => blocks.push(block),
                Some(_) => return Err(ImportError::CutOff),
                None => {
                    block.lines.push(line);
                    open = Some(block);
                }
            }
        }
    }
    if open.is_some() {
        return Err(ImportError::CutOff);
    }
    Ok(blocks)
}
