//! A child process of this same binary. It runs as long as its standard input is open: when the parent ends, in
//! whatever way, the children see it and shut down.

use crate::failure::Failure;
use daitn_messages::rejection::Code;
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A child that is not ready after this time has failed.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// A child that has not shut down after this time is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How much of a failed child's log is shown, bytes.
const TAIL_BYTES: u64 = 2_000;

/// A running child.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How to start one.
pub(crate) struct Start<'a> {
    /// For messages, and the name of its log.
    pub(crate) name: &'a str,
    /// Arguments of this binary.
    pub(crate) arguments: &'a [&'a str],
    /// Where logs go.
    pub(crate) logs: &'a Path,
    /// Environment beside the parent's.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

impl Process {
    /// Starts a child that goes on until it is told to stop.
    pub(crate) fn start(start: &Start<'_>) -> Result<Self, Failure> {
        let log = start.logs.join(format!("{}.log", start.name));
        let mut child = command(start, &log)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::internal(format!("{} cannot be started: {error}", start.name)))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::internal("a child has no standard output"))?;
        Ok(Self {
            name: start.name.to_owned(),
            log,
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// What it tells when it is ready: the data of its first envelope.
    pub(crate) async fn ready(&mut self) -> Result<Value, Failure> {
        let line = tokio::time::timeout(READY_TIMEOUT, self.lines.next_line()).await;
        let told = match line {
            Ok(Ok(Some(line))) => serde_json::from_str::<Value>(&line).ok(),
            Ok(_) => None,
            Err(_) => {
                return Err(
                    Failure::timed_out(format!("{} was not ready in time", self.name)).hint(self.tail())
                );
            }
        };
        match told {
            Some(mut envelope) if envelope["status"] == "ok" => Ok(envelope["data"].take()),
            Some(envelope) => {
                let said = envelope["error"]["message"]
                    .as_str()
                    .unwrap_or("it did not say why");
                Err(Failure::new(Code::Internal, format!("{} failed: {said}", self.name)).hint(self.tail()))
            }
            None => Err(Failure::new(Code::Internal, format!("{} ended early", self.name)).hint(self.tail())),
        }
    }

    /// Ends it at once, as a power cut would.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        self.child
            .kill()
            .await
            .map_err(|error| Failure::internal(format!("{}: {error}", self.name)))
    }

    /// Lets it shut down, and kills it if that takes too long.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(process = self.name, "did not shut down in time and is killed");
            // It may have ended meanwhile: either way it is gone.
            let _ = self.child.kill().await;
        }
    }

    fn tail(&self) -> String {
        format!("Its log ({}) ends with:\n{}", self.log.display(), tail(&self.log))
    }
}

/// Runs a child to its end, and gives what it printed.
pub(crate) async fn run(start: &Start<'_>) -> Result<String, Failure> {
    let log = start.logs.join(format!("{}.log", start.name));
    let done = command(start, &log)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .output()
        .await
        .map_err(|error| Failure::internal(format!("{} cannot be started: {error}", start.name)))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = serde_json::from_slice::<Value>(&done.stdout).ok();
    let said = said
        .as_ref()
        .and_then(|envelope| envelope["error"]["message"].as_str())
        .unwrap_or("");
    Err(Failure::new(Code::Internal, format!("{} failed: {said}", start.name)).hint(tail(&log)))
}

fn command(start: &Start<'_>, log: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::internal(format!("this program's own file is not known: {error}")))?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| Failure::file(log, error))?;
    let mut command = Command::new(program);
    command
        .args(start.arguments)
        .envs(start.environment.iter().copied())
        .stderr(file)
        // Ctrl-C is for the parent, which stops the children in order.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("(it cannot be read: {error})"))
}
