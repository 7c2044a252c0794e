//! Nothing outlives the test process: no server, no folder, not even when it is killed.
//!
//! Destructors do not run when a process is killed, nor for a `static` when it exits, and the
//! shared control plane is one. So each test process has a janitor, a small shell that reads what
//! to clean up from a pipe. When the test process ends, in whatever way, the kernel closes its end
//! of the pipe, and the janitor kills and removes what is left.
//!
//! A child puts itself on the list between fork and exec, while it still holds the pipe open. So
//! there is no moment at which a kill of the test process could leave a child that the janitor has
//! not heard of. (`PR_SET_PDEATHSIG` would do it on Linux only, and is tied to the life of the
//! thread that forked rather than to the process.)

use super::scratch;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

/// Reads `kill PID`, `spare PID` and `remove FOLDER` until the pipe closes. The folders are the
/// shell's positional parameters, since a path may hold spaces; removing one is tried for some
/// seconds, as a killed server may still be writing into it.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r verb what; do
  case $verb in
    kill) pids="$pids$what " ;;
    spare) case $pids in *" $what "*) pids="${pids%%" $what "*} ${pids#*" $what "}" ;; esac ;;
    remove) set -- "$@" "$what" ;;
  esac
done
for pid in $pids; do kill -KILL "$pid"; done
for folder; do
  tries=0
  while [ -e "$folder" ] && [ $tries -lt 50 ]; do
    rm -rf "$folder" || sleep 0.1
    tries=$((tries + 1))
  done
done
"#;

struct Janitor {
    pipe: Mutex<ChildStdin>,
    fd: RawFd,
    _shell: Child,
}

static JANITOR: LazyLock<Janitor> = LazyLock::new(|| {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "chancery-test-janitor"])
        // A group of its own: Ctrl-C in the terminal is for the tests, not for who cleans up.
        .process_group(0)
        .current_dir("/")
        // Where rm and sleep are, whatever a test has made of its own PATH.
        .env("PATH", "/usr/bin:/bin:/run/current-system/sw/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the janitor needs /bin/sh");
    let pipe = shell.stdin.take().expect("stdin was asked for");
    Janitor {
        fd: pipe.as_raw_fd(),
        pipe: Mutex::new(pipe),
        _shell: shell,
    }
});

/// Makes the process that this command will start die with the test process. Once that process has
/// been waited for, [`spare`] must be told, because its id may then belong to a stranger.
pub fn leash(command: &mut Command) {
    let pipe = JANITOR.fd;
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: getpid and write are,
    // and the line is made on the stack. The pipe is never closed while this process lives.
    unsafe {
        command.pre_exec(move || {
            let mut line = *b"kill           \n";
            let mut rest = libc::getpid();
            let mut at = line.len() - 1;
            while rest > 0 {
                at -= 1;
                line[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            match libc::write(pipe, line.as_ptr().cast(), line.len()) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
}

/// Takes a process that has been waited for off the list.
pub fn spare(pid: u32) {
    tell(format!("spare {pid}\n").as_bytes());
}

/// Has a folder removed when the test process ends.
pub fn remove_at_exit(folder: &Path) {
    if !scratch::kept() {
        let path = folder.to_str().expect("temporary folders have UTF-8 names");
        tell(format!("remove {path}\n").as_bytes());
    }
}

fn tell(line: &[u8]) {
    let mut pipe = JANITOR.pipe.lock().unwrap_or_else(|e| e.into_inner());
    // One write, so that lines of several writers do not mix.
    pipe.write_all(line)
        .expect("the janitor of this test process is gone: who killed it?");
}
