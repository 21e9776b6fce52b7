//! `/debug/pprof`: CPU and heap profiles for the tool `pprof`, at the paths and with the texts of Go's
//! `net/http/pprof`. The program takes them through [`Profiler`]. Profiles of Go's runtime (goroutines,
//! blocks, traces) are not served.

use std::time::Duration;

use http::header::{CONTENT_DISPOSITION, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use tonic::body::Body;

use super::vars::Process;
use super::{TEXT, with_type};
use crate::env::BoxFuture;

const ROOT: &str = "/debug/pprof";
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PROFILE: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Default duration of a CPU profile, Go's.
const LASTS: Duration = Duration::from_secs(30);
/// Maximum size of a request for symbols; each is looked up in the program's debug information.
const SYMBOLS_MAX: usize = 4096;

/// Takes profiles of the process.
pub trait Profiler: Send + Sync {
    /// Takes a CPU profile of `lasts`: a `profile.proto`, gzipped. One at a time; dropping the future
    /// ends it.
    fn cpu(&self, lasts: Duration) -> BoxFuture<'_, Result<Vec<u8>, String>>;
    /// Takes a heap profile, in the same form or as the allocator's text.
    fn heap(&self, text: bool) -> BoxFuture<'_, Result<Vec<u8>, String>>;
    /// Returns the functions at these addresses; unknown addresses are left out.
    fn symbols(&self, addresses: Vec<u64>) -> BoxFuture<'_, Result<Vec<(u64, String)>, String>>;
}

/// Answers a path below `/debug/pprof`; `None` for other paths and where profiles are disabled.
pub(crate) async fn answer(process: &Process, path: &str, query: &str) -> Option<Response<Body>> {
    let profiler = process.profiler.as_deref()?;
    let rest = path.strip_prefix(ROOT)?;
    let mut response = match rest {
        "" => moved(),
        "/" => with_type(StatusCode::OK, HTML, INDEX),
        "/cmdline" => with_type(StatusCode::OK, TEXT, process.command_line.join("\0")),
        "/symbol" => symbols(profiler, query).await,
        "/profile" => match profiler.cpu(lasts(query)).await {
            Ok(profile) => file(profile, "profile"),
            Err(why) => {
                let why = format!("Could not enable CPU profiling: {why}");
                refused(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
        },
        "/heap" => heap(profiler, query).await,
        _ if rest.starts_with('/') => refused(StatusCode::NOT_FOUND, "Unknown profile"),
        _ => return None,
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

async fn heap(profiler: &dyn Profiler, query: &str) -> Response<Body> {
    if value(query, "seconds").is_some() {
        let why = "allocations over a time are not recorded, only memory in use";
        return refused(StatusCode::BAD_REQUEST, why);
    }
    let level = value(query, "debug").and_then(|level| level.parse::<i64>().ok());
    let as_text = level.is_some_and(|level| level != 0);
    match profiler.heap(as_text).await {
        Ok(text) if as_text => with_type(StatusCode::OK, TEXT, text),
        Ok(profile) => file(profile, "heap"),
        Err(why) => refused(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

/// Parses the seconds; as in Go, an invalid number is the default.
fn lasts(query: &str) -> Duration {
    let seconds = value(query, "seconds").and_then(|text| text.parse::<u32>().ok());
    seconds.filter(|seconds| *seconds > 0).map_or(LASTS, |s| Duration::from_secs(s.into()))
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// Maps hexadecimal addresses, separated by `+`, to lines; unknown ones are left out. The first line
/// reports that symbols are available.
async fn symbols(profiler: &dyn Profiler, query: &str) -> Response<Body> {
    let address = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let addresses = query.split(['+', ' ']).take(SYMBOLS_MAX).filter_map(address).collect();
    match profiler.symbols(addresses).await {
        Ok(known) => {
            let lines = known.iter().map(|(address, name)| format!("{address:#x} {name}\n"));
            let text: String =
                std::iter::once("num_symbols: 1\n".to_owned()).chain(lines).collect();
            with_type(StatusCode::OK, TEXT, text)
        }
        Err(why) => refused(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn file(bytes: Vec<u8>, name: &str) -> Response<Body> {
    let mut response = with_type(StatusCode::OK, PROFILE, bytes);
    let saved_as = format!("attachment; filename=\"{name}\"");
    let saved_as = HeaderValue::from_str(&saved_as).expect("names are plain");
    response.headers_mut().insert(CONTENT_DISPOSITION, saved_as);
    response
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = with_type(status, TEXT, format!("{why}\n"));
    response.headers_mut().insert("X-Go-Pprof", HeaderValue::from_static("1"));
    response
}

fn moved() -> Response<Body> {
    let text = format!("<a href=\"{ROOT}/\">Moved Permanently</a>.\n\n");
    let mut response = with_type(StatusCode::MOVED_PERMANENTLY, HTML, text);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/debug/pprof/"));
    response
}

const INDEX: &str = r#"<html>
<head><title>/debug/pprof/</title></head>
<body>
<h1>/debug/pprof/</h1>
<ul>
<li><a href="profile?seconds=30">profile</a>: where the processor's time goes; <code>seconds</code> says for how long to look</li>
<li><a href="heap">heap</a>: who holds what is allocated, by samples; <a href="heap?debug=1">as text</a></li>
<li><a href="cmdline">cmdline</a>: how the program was called</li>
<li><a href="symbol">symbol</a>: the functions at addresses</li>
</ul>
</body>
</html>
"#;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use http_body_util::BodyExt as _;

    use super::*;

    struct Fixed;

    impl Profiler for Fixed {
        fn cpu(&self, lasts: Duration) -> BoxFuture<'_, Result<Vec<u8>, String>> {
            Box::pin(async move {
                match lasts.as_secs() {
                    7 => Err("cpu profiling already in use".into()),
                    seconds => Ok(format!("{seconds} s").into()),
                }
            })
        }

        fn heap(&self, text: bool) -> BoxFuture<'_, Result<Vec<u8>, String>> {
            Box::pin(async move { Ok(format!("heap, text: {text}").into()) })
        }

        fn symbols(
            &self,
            addresses: Vec<u64>,
        ) -> BoxFuture<'_, Result<Vec<(u64, String)>, String>> {
            let known = addresses.into_iter().filter(|address| *address == 0x10);
            Box::pin(async move { Ok(known.map(|address| (address, "main".into())).collect()) })
        }
    }

    async fn ask(profiler: Option<Arc<dyn Profiler>>, uri: &str) -> String {
        let command_line = ["quorate".to_owned(), "--name".to_owned()].into();
        let process = Process { command_line, files_max: 0, profiler };
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let Some(response) = answer(&process, path, query).await else {
            return "not there".into();
        };
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).map(|value| value.to_str().expect("text"));
        let saved_as = header("content-disposition").unwrap_or_default();
        let head = format!("{status} {} {saved_as}", header("content-type").expect("one"));
        let body = response.into_body().collect().await.expect("it is there").to_bytes();
        format!("{}: {:?}", head.trim_end(), String::from_utf8_lossy(&body))
    }

    #[tokio::test]
    async fn answers_are_those_of_go() {
        let uris = "/debug/pprof /debug/pprof/cmdline /debug/pprof/symbol /debug/pprof/symbol?0x10+0x20+10 \
                    /debug/pprof/profile /debug/pprof/profile?seconds=5 /debug/pprof/profile?seconds=-5 \
                    /debug/pprof/profile?seconds=7 /debug/pprof/heap /debug/pprof/heap?debug=1 \
                    /debug/pprof/heap?debug=0 /debug/pprof/heap?debug=x /debug/pprof/heap?seconds=1 /debug/pprof/goroutine \
                    /debug/pprofs /debug/vars";
        let profiler: Arc<dyn Profiler> = Arc::new(Fixed);
        let mut lines = String::new();
        for uri in uris.split_whitespace() {
            lines += &format!("{uri} -> {}\n", ask(Some(profiler.clone()), uri).await);
        }
        expect![[r#"
            /debug/pprof -> 301 text/html; charset=utf-8: "<a href=\"/debug/pprof/\">Moved Permanently</a>.\n\n"
            /debug/pprof/cmdline -> 200 text/plain; charset=utf-8: "quorate\0--name"
            /debug/pprof/symbol -> 200 text/plain; charset=utf-8: "num_symbols: 1\n"
            /debug/pprof/symbol?0x10+0x20+10 -> 200 text/plain; charset=utf-8: "num_symbols: 1\n0x10 main\n0x10 main\n"
            /debug/pprof/profile -> 200 application/octet-stream attachment; filename="profile": "30 s"
            /debug/pprof/profile?seconds=5 -> 200 application/octet-stream attachment; filename="profile": "5 s"
            /debug/pprof/profile?seconds=-5 -> 200 application/octet-stream attachment; filename="profile": "30 s"
            /debug/pprof/profile?seconds=7 -> 500 text/plain; charset=utf-8: "Could not enable CPU profiling: cpu profiling already in use\n"
            /debug/pprof/heap -> 200 application/octet-stream attachment; filename="heap": "heap, text: false"
            /debug/pprof/heap?debug=1 -> 200 text/plain; charset=utf-8: "heap, text: true"
            /debug/pprof/heap?debug=0 -> 200 application/octet-stream attachment; filename="heap": "heap, text: false"
            /debug/pprof/heap?debug=x -> 200 application/octet-stream attachment; filename="heap": "heap, text: false"
            /debug/pprof/heap?seconds=1 -> 400 text/plain; charset=utf-8: "allocations over a time are not recorded, only memory in use\n"
            /debug/pprof/goroutine -> 404 text/plain; charset=utf-8: "Unknown profile\n"
            /debug/pprofs -> not there
            /debug/vars -> not there
        "#]].assert_eq(&lines);
    }

    #[tokio::test]
    async fn nothing_is_there_unless_it_is_asked_for() {
        assert_eq!(ask(None, "/debug/pprof/").await, "not there");
        assert!(ask(Some(Arc::new(Fixed)), "/debug/pprof/").await.contains("profile?seconds=30"));
    }
}
