//! curl as a client of HTTP: the body on standard output, and on standard error the fields of the head, in an
//! order of its own. Heads are not compared where HTTP leaves them to the server.

use std::process::Command;

use super::etcdctl::{Output, Running};

/// Left to the server, or to the time of day.
const LEFT_OUT: [&str; 5] =
    ["date", "content-length", "transfer-encoding", "trailer", "grpc-trailer-content-type"];

/// curl pointed at one server.
#[derive(Clone)]
pub struct Curl {
    url: String,
}

impl Curl {
    pub fn new(url: String) -> Self {
        Self { url }
    }

    /// Runs to the end. The first word is a path, the others are curl's.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Output {
        let output = self.start(args).finish();
        Output { stderr: head(&output.stderr), ..output }
    }

    /// Runs in the background.
    pub fn start<S: AsRef<str>>(&self, args: &[S]) -> Running {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let (path, rest) = args.split_first().expect("a path comes first");
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--no-buffer", "--max-time", "20"])
            .args(["--dump-header", "/dev/stderr"])
            .arg(format!("{}{path}", self.url))
            .args(rest);
        Running::new(command, format!("curl {}", args.join(" ")), "")
    }
}

fn head(text: &str) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(|line| match line.strip_prefix("HTTP/") {
            Some(status) => Some(format!("status {}", status.split(' ').nth(1)?)),
            None => {
                let (name, value) = line.split_once(':')?;
                let name = name.to_ascii_lowercase();
                (!LEFT_OUT.contains(&&*name)).then(|| format!("{name}:{value}"))
            }
        })
        .collect();
    lines.sort();
    lines.join("\n")
}
