//! The file that a timetable is written into.

use std::fs;
use std::path::Path;

/// Writes the whole text or nothing: a reader never finds half a picture.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    let refused = |e: std::io::Error| {
        format!(
            "--out {} can not be written: {e}. Give a file in a directory that is there and that you may write in",
            path.display()
        )
    };
    // What is no plain file (/dev/stdout, a pipe) can not be put in place of another.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return fs::write(path, text).map_err(refused);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = Path::new(&beside);
    let done = fs::write(beside, text).and_then(|()| fs::rename(beside, path));
    done.map_err(|e| {
        let _ = fs::remove_file(beside);
        refused(e)
    })
}
