//! The repository's rules, checked on every file: layers, fences around crates, ways to the outside world,
//! sizes and first lines. Each rule is a function from a file to complaints, or from all files where it is
//! about how they depend on each other (`tidy/circles.rs`), and each has a test in which it complains. What
//! clippy can check is left to it (`.clippy.toml`).

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/messages.rs"]
mod messages;
#[path = "tidy/words.rs"]
mod words;

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

/// The layer table of `src/lib.rs`, lowest row first: a module names modules of lower rows only.
const ROWS: &[&[&str]] = &[
    &["types", "limits", "latest", "mark", "metrics", "plant", "rpc"],
    &["error", "codec"],
    &["env"],
    &["tls"],
    &["trace"],
    &["wal", "engine", "bbolt"],
    &["mvcc"],
    &["lease", "auth"],
    &["apply"],
    &["replica", "peer", "watch"],
    &["member"],
    &["grpc", "http"],
    &["server"],
    &["config"],
    &["tool"],
    &["ctl", "offline", "discovery"],
    &["proxy"],
];

/// The client stands beside the rows: it names these, and is named by [`CLIENTS`].
const CLIENT_NAMES: &[&str] = &["types", "limits", "error", "codec", "env", "tls"];
const CLIENTS: &[&str] = &["server", "ctl", "discovery", "proxy"];

/// Crates that only these modules of `src` name; `bin` is every program. Tests may build what they
/// test from whatever they need.
const FENCES: &[(&str, &[&str])] = &[
    ("raft", &["replica"]),
    ("slog", &["replica"]),
    ("rocksdb", &["engine"]),
    ("tonic", &["grpc", "http", "server", "client", "discovery", "proxy"]),
    ("hyper", &["env", "peer", "server", "client", "proxy"]),
    ("hyper_util", &["env", "peer", "server", "client", "proxy"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("webpki", &["tls"]),
    ("x509_parser", &["tls"]),
    ("rcgen", &["tls"]),
    ("prometheus", &["metrics", "bin"]),
    ("tokio_tungstenite", &["http"]),
    ("h2", &["grpc", "server"]),
    ("prost_reflect", &["http", "ctl"]),
    ("clap", &["tool"]),
    ("clap_complete", &["tool"]),
    ("clap_mangen", &["tool"]),
    ("rpassword", &["bin"]),
    ("rustix", &["env", "bin"]),
    ("getrandom", &["env"]),
    ("dns_lookup", &["env"]),
    ("simple_dns", &["env"]),
    ("tracing_subscriber", &["config", "bin"]),
    ("saphyr_parser", &["config"]),
    ("anyhow", &["bin", "ctl", "offline"]),
    ("madsim", &[]),
    ("rand", &[]),
    ("bcrypt", &["member"]),
    ("rsa", &["member"]),
    ("p256", &["member"]),
    ("p384", &["member"]),
    ("p521", &["member"]),
    ("ed25519_dalek", &["member"]),
    ("hmac", &["member"]),
    ("backtrace", &["bin"]),
    ("tikv_jemallocator", &["bin"]),
    ("tikv_jemalloc_ctl", &["bin"]),
    ("jiff", &["bin"]),
];

/// Paths to the outside world that only `src/env`, `src/bin` and tests may take, and what to take instead.
const WORLD: &[(&[&str], &str)] = &[
    (&["tokio", "spawn"], "Env::spawn"),
    (&["tokio", "task"], "Env::spawn, Env::blocking"),
    (&["tokio", "time"], "Env::sleep, Env::timeout"),
    (&["tokio", "net"], "Env::net"),
    (&["tokio", "fs"], "Env::disk"),
    (&["tokio", "sync", "watch"], "latest, which wakes in order"),
    (&["tokio", "process"], "nothing: a server starts no programs"),
    (&["tokio", "signal"], "Server::shutdown"),
    (&["tokio", "runtime"], "Env::rt"),
    (&["std", "fs"], "Env::disk"),
    (&["std", "thread"], "Env::blocking, Runtime::worker"),
    (&["std", "process"], "Fatal"),
    (&["std", "env"], "an option"),
    (&["std", "net", "TcpListener"], "Env::net"),
    (&["std", "net", "TcpStream"], "Env::net"),
    (&["std", "net", "UdpSocket"], "Env::net"),
    (&["std", "net", "ToSocketAddrs"], "Env::net"),
    (&["std", "os", "unix", "net"], "Env::net"),
    (&["std", "os"], "Env"),
];

/// Calls forbidden outside the same places by how they end, whatever they are imported as.
const CLOCKS: &[(&[&str], &str)] =
    &[(&["Instant", "now"], "Env::now"), (&["SystemTime", "now"], "Env::wall")];

/// Files for which a rule about the world and clocks has to give way, and why.
const WORLD_EXCEPTIONS: &[(&str, &str)] = &[];

const FILE_LINES_MAX: usize = 900;
const FUNCTION_LINES_MAX: usize = 120;
/// Longer than allowed, to get shorter: an entry that is not needed any more is a complaint.
const LONG_FILES: &[&str] = &[];
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Names without a meaning.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "manager", "misc"];

const FOLDERS: &[&str] = &["src", "sim", "proto", "fuzz", "tests"];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(root, &root.join(folder), &mut files);
    }
    assert!(files.len() > 20, "only {} files found below {}", files.len(), root.display());
    let mut complaints: Vec<String> = files.iter().flat_map(complaints).collect();
    complaints.extend(stale_exceptions(&files));
    complaints.extend(circles::circles(&files));
    complaints.extend(words::plain(&files));
    complaints.extend(messages::stale(&files));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// One file of the tree.
struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
    tokens: TokenStream,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let tokens = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text: text.to_owned(), tokens }
    }

    /// The module of `src` that the file is part of; `bin` for programs, `lib` for the map.
    fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        let first = path.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// How many modules deep the file's items are: 1 for `src/a.rs` and `src/a/mod.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count() - 1;
        parts - usize::from(self.path.ends_with("/mod.rs"))
    }

    fn paths(&self) -> Vec<CodePath> {
        let mut paths = Vec::new();
        let in_tests = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        walk(self.tokens.clone(), &[], Place { depth: self.depth(), in_tests }, &mut paths);
        paths
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> =
        entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            let name = path.strip_prefix(root).expect("it was found below the root");
            files.push(Source::new(&name.to_string_lossy(), &text));
        }
    }
}

fn complaints(source: &Source) -> Vec<String> {
    let rules: [fn(&Source) -> Vec<String>; 11] = [
        first_line,
        file_name,
        file_size,
        function_size,
        layers,
        fences,
        outside_world,
        one_world,
        biased_selects,
        messages::without_debug_forms,
        circles::hidden_imports,
    ];
    rules.iter().flat_map(|rule| rule(source)).chain(ignored_tests(source)).collect()
}

/// STYLE: the first line describes what the file is and what it does not do.
fn first_line(source: &Source) -> Vec<String> {
    match source.text.starts_with("//! ") {
        true => Vec::new(),
        false => vec![source.complain(1, "does not begin with `//! ` and what the file is")],
    }
}

fn file_name(source: &Source) -> Vec<String> {
    let parts = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    parts
        .filter(|part| EMPTY_NAMES.contains(part))
        .map(|part| source.complain(1, format!("`{part}` does not say what is inside")))
        .collect()
}

fn file_size(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX || LONG_FILES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    vec![source.complain(1, format!("{lines} lines; look for a second noun"))]
}

fn function_size(source: &Source) -> Vec<String> {
    functions(source)
        .into_iter()
        .filter(|f| f.lines > FUNCTION_LINES_MAX)
        .filter(|f| !LONG_FUNCTIONS.contains(&(source.path.as_str(), f.name.as_str())))
        .map(|f| {
            source
                .complain(f.line, format!("`{}` has {} lines; no screen shows it", f.name, f.lines))
        })
        .collect()
}

/// A module names modules of lower rows only, and its own.
fn layers(source: &Source) -> Vec<String> {
    let Some(module) = source.module().filter(|m| !matches!(*m, "lib" | "bin")) else {
        return Vec::new();
    };
    let Some(row) = row(module) else {
        return vec![
            source.complain(1, format!("module `{module}` is in no row of the layer table")),
        ];
    };
    let mut complaints = Vec::new();
    for path in source.paths().into_iter().filter(|path| !path.place.in_tests) {
        let Some(named) = path.module_named() else { continue };
        let allowed = match (module, named) {
            _ if named == module => true,
            ("client", _) => CLIENT_NAMES.contains(&named),
            (_, "client") => CLIENTS.contains(&module),
            // A name that is no module is an item of the crate's root.
            _ => self::row(named).is_none_or(|other| other < row),
        };
        if !allowed {
            let what = format!("`{module}` names `{named}`, which is not below it");
            complaints.push(source.complain(path.line, what));
        }
    }
    complaints
}

fn row(module: &str) -> Option<usize> {
    if module == "client" {
        return Some(usize::MAX);
    }
    ROWS.iter().position(|row| row.contains(&module))
}

fn fences(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let mut complaints = Vec::new();
    let paths = source.paths();
    for path in paths.iter().filter(|path| path.segments.len() > 1 && !path.place.in_tests) {
        let fence = FENCES.iter().find(|(name, _)| path.segments[0] == *name);
        if let Some((name, allowed)) = fence.filter(|(_, allowed)| !allowed.contains(&module)) {
            let what = format!("crate `{name}` is named by {allowed:?} only");
            complaints.push(source.complain(path.line, what));
        }
    }
    complaints
}

fn outside_world(source: &Source) -> Vec<String> {
    let inside = source.module().is_none_or(|module| matches!(module, "env" | "bin"));
    if inside || WORLD_EXCEPTIONS.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for path in source.paths().into_iter().filter(|path| !path.place.in_tests) {
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        if segments.starts_with(&["std", "env", "consts"]) {
            continue;
        }
        let world = WORLD.iter().find(|(path, _)| segments.starts_with(path));
        let clock = CLOCKS.iter().find(|(clock, _)| segments.ends_with(clock));
        if let Some((_, instead)) = world.or(clock) {
            let what = format!("`{}` is of the outside world: use {instead}", segments.join("::"));
            complaints.push(source.complain(path.line, what));
        }
    }
    complaints
}

/// Both worlds run the same code: nothing in `src` knows in which it is.
fn one_world(source: &Source) -> Vec<String> {
    if source.module().is_none() {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    each(&source.tokens, &mut |tokens, at| {
        if let TokenTree::Ident(ident) = &tokens[at]
            && ident == "madsim"
        {
            let line = ident.span().start().line;
            complaints.push(source.complain(line, "`src` does not know the simulator"));
        }
    });
    complaints
}

/// STYLE: `select!` is `biased;`, and a comment gives the reason for the order.
fn biased_selects(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    each(&source.tokens, &mut |tokens, at| {
        let [TokenTree::Ident(name), TokenTree::Punct(bang), TokenTree::Group(body)] =
            &tokens[at..tokens.len().min(at + 3)]
        else {
            return;
        };
        if name != "select" || bang.as_char() != '!' {
            return;
        }
        let line = name.span().start().line;
        let first = body.stream().into_iter().next();
        let biased = first.filter(|token| token.to_string() == "biased");
        let Some(biased) = biased else {
            complaints.push(source.complain(line, "`select!` without `biased;`"));
            return;
        };
        let at = biased.span().start().line;
        // The comment stands inside, or in the line above.
        let above = line.saturating_sub(2);
        let mut near = source.text.lines().skip(above).take(at + 1 - above);
        if !near.any(|line| line.contains("//")) {
            complaints.push(source.complain(at, "`biased;` without a comment on the order"));
        }
    });
    complaints
}

/// STYLE: a test that does not run is no test.
fn ignored_tests(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    each(&source.tokens, &mut |tokens, at| {
        let [TokenTree::Punct(hash), TokenTree::Group(attribute)] =
            &tokens[at..tokens.len().min(at + 2)]
        else {
            return;
        };
        let first = attribute.stream().into_iter().next();
        if hash.as_char() == '#' && first.is_some_and(|token| token.to_string() == "ignore") {
            let line = hash.span().start().line;
            complaints.push(source.complain(line, "an ignored test"));
        }
    });
    complaints
}

/// Exceptions must shrink with what they excuse.
fn stale_exceptions(files: &[Source]) -> Vec<String> {
    let file = |path: &str| files.iter().find(|file| file.path == path);
    let long =
        |path: &&&str| file(path).is_some_and(|file| file.text.lines().count() > FILE_LINES_MAX);
    let long_function = |entry: &&(&str, &str)| {
        file(entry.0).is_some_and(|file| {
            functions(file).iter().any(|f| f.name == entry.1 && f.lines > FUNCTION_LINES_MAX)
        })
    };
    let files_stale = LONG_FILES.iter().filter(|path| !long(path)).map(ToString::to_string);
    let functions_stale =
        LONG_FUNCTIONS.iter().filter(|entry| !long_function(entry)).map(|e| format!("{e:?}"));
    let world_stale =
        WORLD_EXCEPTIONS.iter().filter(|(path, _)| file(path).is_none()).map(|e| format!("{e:?}"));
    files_stale
        .chain(functions_stale)
        .chain(world_stale)
        .map(|entry| format!("tests/tidy.rs: the exception {entry} is not needed any more"))
        .collect()
}

/// A path in code, use trees written out.
#[derive(Debug)]
struct CodePath {
    segments: Vec<String>,
    line: usize,
    place: Place,
}

/// Where in the tree of modules code stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Modules between the crate's root and here.
    depth: usize,
    in_tests: bool,
}

impl CodePath {
    /// The module of the crate's root that the path leads to: behind `crate::`, or behind as many
    /// `super::` as lead there.
    fn module_named(&self) -> Option<&str> {
        let supers = self.segments.iter().take_while(|segment| *segment == "super").count();
        let at = match self.segments.first()?.as_str() {
            "crate" => 1,
            "super" if supers >= self.place.depth => supers,
            _ => return None,
        };
        self.segments.get(at).map(String::as_str)
    }
}

/// Finds every path below `tokens`, in macros too.
fn walk(tokens: TokenStream, prefix: &[String], place: Place, paths: &mut Vec<CodePath>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => walk(group.stream(), prefix, place, paths),
            TokenTree::Ident(ident) if ident == "as" && !prefix.is_empty() => at += 1,
            TokenTree::Ident(ident) if ident == "mod" => {
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    let tests = tokens[at + 1].to_string() == "tests";
                    let in_tests = place.in_tests || tests;
                    let inside = Place { depth: place.depth + 1, in_tests };
                    walk(body.stream(), prefix, inside, paths);
                    at += 2;
                }
            }
            TokenTree::Ident(_) if at > 0 && is_punct(&tokens[at - 1], '.') => {}
            TokenTree::Ident(ident) => {
                let line = ident.span().start().line;
                let mut segments = prefix.to_vec();
                segments.push(ident.to_string());
                let mut tree = None;
                while is_separator(&tokens, at + 1) {
                    match tokens.get(at + 3) {
                        Some(TokenTree::Ident(next)) => segments.push(next.to_string()),
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            tree = Some(group.stream());
                        }
                        _ => break,
                    }
                    at += 3;
                }
                match tree {
                    Some(tree) => walk(tree, &segments, place, paths),
                    None => paths.push(CodePath { segments, line, place }),
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    [at, at + 1].iter().all(|at| tokens.get(*at).is_some_and(|token| is_punct(token, ':')))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Calls `visit` with every token and those beside it.
fn each(tokens: &TokenStream, visit: &mut impl FnMut(&[TokenTree], usize)) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        visit(&tokens, at);
        if let TokenTree::Group(group) = token {
            each(&group.stream(), visit);
        }
    }
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

fn functions(source: &Source) -> Vec<Function> {
    let file =
        syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut functions = Functions(Vec::new());
    functions.visit_file(&file);
    functions.0
}

struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let end = block.brace_token.span.close().end().line;
        self.0.push(Function { name: signature.ident.to_string(), line, lines: end - line + 1 });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, function);
    }
}

/// Bad examples: a rule that cannot complain is no rule.
mod bad {
    use super::*;

    fn check(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, wanted: &[&str]) {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), wanted.len(), "{path}: {text}\n{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "`{found}` does not say `{wanted}`");
        }
    }

    #[test]
    fn first_lines() {
        check(first_line, "src/types.rs", "//! The words.\n", &[]);
        check(first_line, "src/types.rs", "use std::fmt;\n//! Late.\n", &["src/types.rs:1:"]);
        check(first_line, "src/types.rs", "//!\n", &["what the file is"]);
    }

    #[test]
    fn names() {
        check(file_name, "src/member/helpers.rs", "", &["`helpers`"]);
        check(file_name, "src/common/mod.rs", "", &["`common`"]);
        check(file_name, "src/member/identity.rs", "", &[]);
    }

    #[test]
    fn sizes() {
        let long = "// x\n".repeat(FILE_LINES_MAX + 1);
        check(file_size, "src/types.rs", &long, &["901 lines"]);
        let body = "    x();\n".repeat(FUNCTION_LINES_MAX - 1);
        let text = format!("struct A;\nimpl A {{\nfn f() {{\n{body}}}\n}}\n");
        check(function_size, "src/types.rs", &text, &["src/types.rs:3: `f` has 121 lines"]);
        let body = "    x();\n".repeat(FUNCTION_LINES_MAX - 2);
        check(function_size, "src/types.rs", &format!("fn f() {{\n{body}}}\n"), &[]);
    }

    #[test]
    fn rows() {
        check(layers, "src/mvcc/store.rs", "use crate::engine::Engine;", &[]);
        check(layers, "src/mvcc/store.rs", "use crate::mvcc::View;", &[]);
        let up = "src/mvcc/store.rs:1: `mvcc` names `member`";
        check(layers, "src/mvcc/store.rs", "use crate::member::Member;", &[up]);
        check(layers, "src/mvcc/store.rs", "fn f() { m!(crate::member::x()) }", &[up]);
        let tree = "use crate::{engine::{self, Cf}, member::{Member, Options as O}, types};";
        check(layers, "src/mvcc/store.rs", tree, &[up, up]);
        check(layers, "src/replica/core.rs", "use crate::peer::Url;", &["`replica` names `peer`"]);
        // Ways to the root through `super`.
        check(layers, "src/mvcc/store.rs", "use super::member;", &[]);
        check(layers, "src/mvcc/store.rs", "use super::super::member::A;", &[up]);
        check(layers, "src/mvcc/mod.rs", "use super::member::A;", &["`mvcc` names `member`"]);
        check(layers, "src/mvcc/mod.rs", "mod inner { use super::member::A; }", &[]);
        check(layers, "src/mvcc/mod.rs", "mod tests { use crate::lease::Leases; }", &[]);
        check(layers, "src/mvcc/tests/random.rs", "use crate::lease::Leases;", &[]);
        check(layers, "src/codec.rs", "use super::env::Env;", &["`codec` names `env`"]);
        // The client, beside the rows.
        check(layers, "src/ctl/mod.rs", "use crate::client::Client;", &[]);
        check(layers, "src/member/mod.rs", "use crate::client::Client;", &["names `client`"]);
        check(layers, "src/client/mod.rs", "use crate::mvcc::View;", &["`client` names `mvcc`"]);
        check(layers, "src/novel/mod.rs", "", &["in no row"]);
    }

    #[test]
    fn crates() {
        check(fences, "src/replica/core.rs", "use raft::RawNode;", &[]);
        check(fences, "src/member/mod.rs", "fn f(n: ::raft::RawNode) {}", &["`raft`"]);
        check(fences, "src/member/mod.rs", "fn f() { self.raft; let raft = 1; }", &[]);
        check(fences, "src/mvcc/mod.rs", "use {rocksdb::DB, bytes::Bytes};", &["`rocksdb`"]);
        check(fences, "src/member/mod.rs", "fn f() -> tonic::Status {}", &["`tonic`"]);
        check(fences, "src/mvcc/tests/mod.rs", "fn f(e: rocksdb::Env) {}", &[]);
        check(fences, "sim/src/lib.rs", "use madsim::time;", &[]);
    }

    #[test]
    fn ways_out() {
        check(
            outside_world,
            "src/member/mod.rs",
            "fn f() { tokio::spawn(x) }",
            &["use Env::spawn"],
        );
        check(
            outside_world,
            "src/member/mod.rs",
            "use tokio::{net::TcpStream, sync};",
            &["Env::net"],
        );
        check(outside_world, "src/wal/mod.rs", "use std::{fs, io};", &["use Env::disk"]);
        check(outside_world, "src/wal/mod.rs", "use std::net::SocketAddr;", &[]);
        check(
            outside_world,
            "src/wal/mod.rs",
            "fn f() { select! { _ = time::Instant::now() => {} } }",
            &["use Env::now"],
        );
        check(
            outside_world,
            "src/wal/mod.rs",
            "fn f() { let now = SystemTime::now; }",
            &["Env::wall"],
        );
        check(outside_world, "src/wal/mod.rs", "mod tests { use std::fs; }", &[]);
        check(outside_world, "src/wal/mod.rs", "mod inner { use std::fs; }", &["Env::disk"]);
        check(outside_world, "src/env/tokio.rs", "use std::fs;", &[]);
        check(outside_world, "src/bin/quorate/main.rs", "use std::fs;", &[]);
        check(one_world, "src/env/mod.rs", "#[cfg(madsim)] fn f() {}", &["src/env/mod.rs:1:"]);
        check(
            one_world,
            "src/env/mod.rs",
            "#[cfg(not(any(test, madsim)))] fn f() {}",
            &["the sim"],
        );
        check(one_world, "sim/src/lib.rs", "use madsim::x;", &[]);
    }

    #[test]
    fn selects_and_ignored_tests() {
        let select = "fn f() { tokio::select! {\n biased; // First things first.\n _ = x => {} } }";
        check(biased_selects, "src/wal/mod.rs", select, &[]);
        let above = "fn f() { tokio::select! {\n // First things.\n biased;\n _ = x => {} } }";
        check(biased_selects, "src/wal/mod.rs", above, &[]);
        let outside = "fn f() {\n // First things.\n let x = select! { biased; _ = x => {} } }";
        check(biased_selects, "src/wal/mod.rs", outside, &[]);
        let silent = "fn f() {\n\n tokio::select! {\n biased;\n _ = x => {} } }";
        check(biased_selects, "src/wal/mod.rs", silent, &["src/wal/mod.rs:4:"]);
        check(biased_selects, "sim/src/a.rs", "fn f() { select! { _ = x => {} } }", &["without"]);
        check(ignored_tests, "src/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &["a.rs:2:"]);
    }
}
