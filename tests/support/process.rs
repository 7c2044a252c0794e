//! Programs that a test runs: their output at hand at any time, and none of them outliving the test.

use super::{janitor, scratch::Scratch, wait};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The binary under test.
pub fn chancery_bin() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chancery"))
}

/// The signals that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please stop: what Kubernetes sends first.
    Term,
    /// A crash, as far as the process can tell.
    Kill,
    /// Freezes the process: it keeps its connections and answers nothing.
    Stop,
    /// Thaws it.
    Cont,
    /// Ctrl-C.
    Int,
    Hup,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => libc::SIGSTOP,
            Signal::Cont => libc::SIGCONT,
            Signal::Int => libc::SIGINT,
            Signal::Hup => libc::SIGHUP,
        }
    }
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The standard output; a panic with both outputs if the program failed.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> String {
        assert!(
            self.success(),
            "{what} failed with {}.\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// A running program. Dropping it kills it.
pub struct Proc {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    /// Whether the janitor has been told that it is gone, which must happen exactly once: the id
    /// may be another child's by now.
    spared: AtomicBool,
    stdout: PathBuf,
    stderr: PathBuf,
    /// Only held: removed after the process has been killed, as fields drop after `drop`.
    _logs: Option<Scratch>,
}

impl Proc {
    /// Runs a program with a home folder of its own and no way to whatever cluster the person at
    /// this machine works with: `KUBECONFIG` is taken away unless `env` gives one.
    #[track_caller]
    pub fn run(program: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Proc {
        let program = program.as_ref();
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let logs = Scratch::new(&name);
        let mut command = Command::new(program);
        command
            .args(args)
            .env("HOME", logs.path())
            .env_remove("KUBECONFIG")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env_remove("KUBERNETES_SERVICE_PORT")
            .envs(env.iter().copied());
        let mut process = Proc::start(&name, command, logs.path());
        process._logs = Some(logs);
        process
    }

    /// Starts a command as it is, but for its outputs, which are appended to `NAME.stdout` and
    /// `NAME.stderr` in the folder `logs`. Its standard input is empty unless it was set.
    #[track_caller]
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Proc {
        let stdout = logs.join(format!("{name}.stdout"));
        let stderr = logs.join(format!("{name}.stderr"));
        command
            .stdout(appending(&stdout))
            .stderr(appending(&stderr));
        janitor::leash(&mut command);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("can not run {:?}: {error}", command.get_program()));
        Proc {
            name: name.to_owned(),
            pid: child.id(),
            child: Mutex::new(child),
            spared: AtomicBool::new(false),
            stdout,
            stderr,
            _logs: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Both outputs, for messages and for a search for secrets.
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// The first line, of either output, that `wanted` holds for; a panic with what there is, if
    /// none comes in time or the program ends before.
    #[track_caller]
    pub fn wait_for_line(&self, mut wanted: impl FnMut(&str) -> bool, timeout: Duration) -> String {
        let found = wait::until(timeout, || {
            // Asked before the output is read: what a process writes last is not missed.
            let ended = self.exited();
            let output = self.output();
            let mut lines = output.split_inclusive('\n');
            // Half a line, that is still being written, does not count.
            let found = lines.find(|line| line.ends_with('\n') && wanted(line.trim_end()));
            match (found, ended) {
                (Some(line), _) => Ok(Ok(line.trim_end().to_owned())),
                (None, Some(status)) => Ok(Err(format!("it ended with {status}"))),
                (None, None) => Err(format!("no such line came in {timeout:?}")),
            }
        });
        match found {
            Ok(Ok(line)) => line,
            Ok(Err(why)) | Err(why) => panic!(
                "waited in vain for a line of {}: {why}. It wrote:\n{}",
                self.name,
                self.output()
            ),
        }
    }

    /// Sends a signal. To a process that has ended it does nothing.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.lock();
        if let Ok(None) = child.try_wait() {
            // SAFETY: not waited for yet, as the lock is held, so the id is still this child's.
            unsafe { libc::kill(self.pid as libc::pid_t, signal.number()) };
        }
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        let status = self.lock().try_wait().expect("a child can be waited for");
        if status.is_some() {
            self.spare();
        }
        status
    }

    pub fn is_running(&self) -> bool {
        self.exited().is_none()
    }

    /// Waits until it ends; `None` if it has not by then.
    pub fn try_wait_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        wait::until(timeout, || self.exited().ok_or(())).ok()
    }

    /// Waits until it ends; a panic with its output if it does not in time.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        self.try_wait_exit(timeout).unwrap_or_else(|| {
            panic!(
                "{} still runs after {timeout:?}. It wrote:\n{}",
                self.name,
                self.output()
            )
        })
    }

    fn spare(&self) {
        if !self.spared.swap(true, Ordering::Relaxed) {
            janitor::spare(self.pid);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        {
            let mut child = self.lock();
            let _ = child.kill();
            let _ = child.wait();
        }
        self.spare();
    }
}

/// Runs a command to its end, with what is given as its standard input. One that takes longer than
/// `limit` is killed, and that is a panic: a test that hangs tells nobody anything.
#[track_caller]
pub fn complete(mut command: Command, stdin: &[u8], limit: Duration) -> Output {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let name = name.into_owned();
    let files = Scratch::new(&name);
    // Files rather than pipes: neither side can block the other, whatever the sizes.
    let input = File::open(files.write("stdin", stdin)).expect("just written");
    command.stdin(Stdio::from(input));
    let process = Proc::start(&name, command, files.path());
    let status = process.wait_exit(limit);
    Output {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

fn appending(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("can not write {}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
