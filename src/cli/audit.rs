//! Where the audit log goes: JSON lines on stdout or in a file, from a thread of its own, so that no
//! request ever waits for a disk.
//!
//! Bounded in memory: where the disk is so slow that the queue is full, lines are lost, counted, and
//! told in the log itself once there is room. Bounded on disk: a file that has grown to
//! [`MOST_BYTES`] is renamed to `<file>.1`, in the place of the one before.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::serve::audit::{ACTORS, TARGET};

/// How many lines may wait.
const QUEUE: usize = 4096;
/// How large a file grows, in bytes.
pub const MOST_BYTES: u64 = 100 * 1024 * 1024;

/// Events for the audit log, as JSON lines.
pub fn layer<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .event_format(JsonLine)
        .with_writer(writer)
        .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
}

/// An event as an object: the time, then its members in their order.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut members = Members(vec![("timestamp", timestamp.into())]);
        event.record(&mut members);
        let json = serde_json::to_string(&members).map_err(|_| fmt::Error)?;
        writeln!(writer, "{json}")
    }
}

struct Members(Vec<(&'static str, Value)>);

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}").into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let json = (field.name() == ACTORS).then(|| serde_json::from_str(value).ok());
        let value = json.flatten().unwrap_or_else(|| value.into());
        self.0.push((field.name(), value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Takes lines, and has them written.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Lines to stdout (`-`) or a file, which is made where there is none and only ever appended to.
    ///
    /// # Errors
    /// A sentence, if the file can not be opened.
    pub fn to(path: &Path) -> Result<Self, String> {
        let sink = if path == Path::new("-") {
            Sink::Stdout
        } else {
            let refused = |e| {
                format!(
                    "--audit-log {} can not be opened: {e}. Name a file in a folder that this process may write to, or - for stdout",
                    path.display()
                )
            };
            Sink::File(Rolling::open(path.to_owned(), MOST_BYTES).map_err(refused)?)
        };
        let (queue, waiting) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let lines = Self {
            queue,
            lost: lost.clone(),
        };
        std::thread::Builder::new()
            .name("audit-log".into())
            .spawn(move || write_all(&waiting, sink, &lost))
            .map_err(|e| format!("the thread of the audit log could not start: {e}"))?;
        Ok(lines)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(line.to_vec())
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(waiting: &Receiver<Vec<u8>>, mut sink: Sink, lost: &AtomicU64) {
    let mut failing = false;
    while let Ok(line) = waiting.recv() {
        let mut result = sink.write(&line);
        if result.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        } else {
            let gone = lost.swap(0, Ordering::Relaxed);
            if gone > 0 {
                let told = format!("{{\"event\":\"lost\",\"lines\":{gone}}}\n");
                result = sink.write(told.as_bytes());
                if result.is_err() {
                    lost.fetch_add(gone, Ordering::Relaxed);
                }
            }
        }
        // Once for each time that it begins, and not for each line.
        if let (Err(error), false) = (&result, failing) {
            tracing::error!(%error, "The audit log can not be written: lines are lost.");
        }
        failing = result.is_err();
    }
}

enum Sink {
    Stdout,
    File(Rolling),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::File(file) => file.write(line),
        }
    }
}

/// A file that makes place for another when it has grown.
struct Rolling {
    path: PathBuf,
    file: File,
    size: u64,
    most: u64,
}

impl Rolling {
    fn open(path: PathBuf, most: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            most,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size + length > self.most && self.size > 0 {
            let mut former = self.path.clone().into_os_string();
            former.push(".1");
            std::fs::rename(&self.path, former)?;
            *self = Self::open(self.path.clone(), self.most)?;
        }
        // In one call: whoever reads along never sees half a line.
        self.file.write_all(line)?;
        self.size += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_where_it_was_and_makes_place_in_time() {
        let folder = std::env::temp_dir().join(format!("chancery-audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("audit.jsonl");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        for line in ["one\n", "two\n"] {
            let mut rolling = Rolling::open(path.clone(), 9).expect("opened");
            rolling.write(line.as_bytes()).expect("written");
        }
        assert_eq!(read("audit.jsonl"), "one\ntwo\n");
        let mut rolling = Rolling::open(path.clone(), 9).expect("opened");
        rolling.write(b"three\n").expect("written");
        assert_eq!(
            (&*read("audit.jsonl"), &*read("audit.jsonl.1")),
            ("three\n", "one\ntwo\n")
        );
        rolling
            .write(b"a line that is longer than all\n")
            .expect("written");
        assert_eq!(read("audit.jsonl.1"), "three\n");
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_told() {
        let (queue, waiting) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let mut lines = Lines {
            queue,
            lost: lost.clone(),
        };
        for line in ["one\n", "two\n", "three\n"] {
            lines.write_all(line.as_bytes()).expect("taken");
        }
        drop(lines);
        let folder = std::env::temp_dir().join(format!("chancery-lost-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("audit.jsonl");
        let rolling = Rolling::open(path.clone(), 1000).expect("opened");
        write_all(&waiting, Sink::File(rolling), &lost);
        let written = std::fs::read_to_string(&path).expect("read");
        assert_eq!(written, "one\n{\"event\":\"lost\",\"lines\":2}\n");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
