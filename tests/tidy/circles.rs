//! No circle of imports among the files of the simulator. A file imports another one when it names an item
//! of it; a re-export (`pub use`) in a folder's `mod.rs` stands for the file that has the item, and a
//! declaration (`mod`) is no import. Tests may import whatever they test with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use super::{CodePath, Place, Source, is_punct, walk};

const ROOT: &str = "sim/src/";
/// The library, as its own programs call it.
const LIBRARY: &str = "sim";

/// A module by its names from the crate's root.
type Module = Vec<String>;

/// One complaint for each group of files that import each other, with a shortest circle among them.
pub fn circles(sources: &[Source]) -> Vec<String> {
    let files = Files::new(sources);
    let edges = files.edges();
    let mut reported = BTreeSet::new();
    let mut complaints = Vec::new();
    for from in edges.keys() {
        if reported.contains(from) {
            continue;
        }
        let Some(circle) = shortest_circle(&edges, from) else { continue };
        let within = reachable(&edges, from);
        reported.extend(within.into_iter().filter(|to| reachable(&edges, to).contains(from)));
        let names: Vec<_> = circle.iter().map(|module| files.path(module)).collect();
        complaints.push(format!("{}:1: imports itself: {}", names[0], names.join(" -> ")));
    }
    complaints
}

/// Complains of imports by which a file could hide what it imports: all of a module, or a module by another
/// name.
pub fn hidden_imports(source: &Source) -> Vec<String> {
    let in_tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    if module(source).is_none() || in_tests {
        return Vec::new();
    }
    let file = syn::parse2(source.tokens.clone()).expect("it compiles");
    let mut hidden = Hidden { source, complaints: Vec::new() };
    hidden.visit_file(&file);
    hidden.complaints
}

struct Hidden<'a> {
    source: &'a Source,
    complaints: Vec<String>,
}

impl<'ast> Visit<'ast> for Hidden<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_use_glob(&mut self, glob: &'ast syn::UseGlob) {
        let line = glob.star_token.spans[0].start().line;
        self.complaints.push(self.source.complain(line, "imports all of a module"));
    }

    fn visit_use_rename(&mut self, rename: &'ast syn::UseRename) {
        // Types and traits are renamed where two have one name.
        if rename.ident.to_string().starts_with(char::is_lowercase) {
            let line = rename.ident.span().start().line;
            self.complaints.push(self.source.complain(line, "imports by another name"));
        }
    }
}

type Edges = BTreeMap<Module, BTreeSet<Module>>;

struct Files<'a> {
    by_module: BTreeMap<Module, &'a Source>,
    paths: BTreeMap<Module, Vec<CodePath>>,
    /// What each file re-exports: the name, and the path that it stands for.
    exports: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl<'a> Files<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let inside = sources.iter().filter_map(|source| Some((module(source)?, source)));
        let by_module: BTreeMap<_, _> = inside.collect();
        let mut files = Self { by_module, paths: BTreeMap::new(), exports: BTreeMap::new() };
        for (module, source) in files.by_module.clone() {
            let is_folder = ["/mod.rs", "/lib.rs"].iter().any(|end| source.path.ends_with(end));
            let (exported, used) = match is_folder {
                true => split(&source.tokens),
                false => (TokenStream::new(), source.tokens.clone()),
            };
            let in_tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
            let place = Place { depth: 0, in_tests };
            let [exported, mut used] = [exported, used].map(|tokens| {
                let mut paths = Vec::new();
                walk(tokens, &[], place, &mut paths);
                paths
            });
            used.retain(|path| !path.place.in_tests);
            let exported = exported.iter().filter_map(|path| {
                let full = files.absolute(&module, path)?;
                Some((full.last()?.clone(), full))
            });
            let exported = exported.collect();
            files.exports.insert(module.clone(), exported);
            files.paths.insert(module, used);
        }
        files
    }

    fn path(&self, module: &Module) -> &str {
        &self.by_module[module].path
    }

    /// A path from the crate's root; none where it leads out of the crate or to what is local.
    fn absolute(&self, from: &Module, path: &CodePath) -> Option<Module> {
        let mut rest = path.segments.as_slice();
        if rest.len() > 1 && rest.last()? == "self" {
            rest = &rest[..rest.len() - 1];
        }
        let first = rest.first()?.as_str();
        let supers = rest.iter().take_while(|segment| *segment == "super").count();
        // Modules inside a file are the file.
        let up = supers.saturating_sub(path.place.depth);
        let (base, skip) = match first {
            "crate" => (&[][..], 1),
            LIBRARY => (&[][..], 1),
            "self" => (from.as_slice(), 1),
            "super" => (&from[..from.len().checked_sub(up)?], supers),
            child => {
                let mut inner = from.clone();
                inner.push(child.to_owned());
                self.by_module.contains_key(&inner).then_some((from.as_slice(), 0))?
            }
        };
        Some(base.iter().chain(&rest[skip..]).cloned().collect())
    }

    /// The file that has the item, re-exports followed; none where a path names a module only.
    fn file_of(&self, path: &[String]) -> Option<Module> {
        let deepest = (0..=path.len()).rev().find(|n| self.by_module.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(deepest);
        let item = rest.first()?;
        match self.exports.get(module).and_then(|exports| exports.get(item)) {
            Some(full) if full.as_slice() != &path[..=deepest] => {
                self.file_of(&[full, &rest[1..]].concat())
            }
            _ => Some(module.to_vec()),
        }
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (module, paths) in &self.paths {
            let full = |path| self.absolute(module, path);
            let named: Vec<Module> = paths.iter().filter_map(full).collect();
            // Modules that the file imports by name, and what it then takes from them.
            let imported: BTreeMap<&String, &Module> = named
                .iter()
                .filter(|path| self.by_module.contains_key(*path))
                .filter_map(|path| Some((path.last()?, path)))
                .collect();
            let through = paths.iter().filter_map(|path| {
                let (first, rest) = path.segments.split_first()?;
                (!rest.is_empty())
                    .then(|| Some([imported.get(first)?.as_slice(), rest].concat()))?
            });
            let all: Vec<Module> = named.iter().cloned().chain(through).collect();
            let to = all.iter().filter_map(|path| self.file_of(path));
            edges.insert(module.clone(), to.filter(|to| to != module).collect());
        }
        edges
    }
}

/// The module that a file of the simulator is.
fn module(source: &Source) -> Option<Module> {
    let path = source.path.strip_prefix(ROOT)?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    Some(if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() })
}

/// What stands behind `pub use`, and all else.
fn split(tokens: &TokenStream) -> (TokenStream, TokenStream) {
    let (mut exported, mut used) = (Vec::new(), Vec::new());
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let mut behind = at + 1;
        let is = |at: usize, word: &str| matches!(tokens.get(at), Some(TokenTree::Ident(ident)) if ident == word);
        if is(at, "pub") {
            behind += usize::from(matches!(tokens.get(behind), Some(TokenTree::Group(_))));
            if is(behind, "use") {
                let end = (behind..tokens.len()).find(|at| is_punct(&tokens[*at], ';'));
                let end = end.unwrap_or(tokens.len());
                exported.extend(tokens[behind + 1..end].iter().cloned());
                exported.extend(tokens.get(end).cloned());
                at = end + 1;
                continue;
            }
        }
        used.push(tokens[at].clone());
        at += 1;
    }
    (exported.into_iter().collect(), used.into_iter().collect())
}

fn reachable(edges: &Edges, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for to in edges.get(module).into_iter().flatten() {
            if found.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    found
}

/// From a file back to itself.
fn shortest_circle(edges: &Edges, from: &Module) -> Option<Vec<Module>> {
    let mut came_from: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(module) = open.pop_front() {
        for to in edges.get(module).into_iter().flatten() {
            if to == from {
                let mut circle = vec![from.clone(), module.clone()];
                let mut at = module;
                while let Some(before) = came_from.get(at) {
                    circle.push((*before).clone());
                    at = before;
                }
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(to) {
                came_from.insert(to, module);
                open.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod bad {
    use super::*;

    fn check(files: &[(&str, &str)], wanted: &[&str]) {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let found = circles(&sources);
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.ends_with(wanted), "`{found}` does not end with `{wanted}`");
        }
    }

    #[test]
    fn files_that_import_each_other() {
        let a = "sim/src/a.rs";
        let b = "sim/src/b.rs";
        check(&[(a, "use crate::b::X;"), (b, "struct X;")], &[]);
        let circle = "sim/src/a.rs -> sim/src/b.rs -> sim/src/a.rs";
        check(&[(a, "use crate::b::X;"), (b, "use super::a::Y;")], &[circle]);
        check(
            &[(a, "use crate::b::{self, Z}; fn f() { b::x() }"), (b, "fn f(y: crate::a::Y) {}")],
            &[circle],
        );
        check(&[(a, "use crate::b; fn f() { b::x() }"), (b, "use sim::a::Y;")], &[circle]);
        let c = ("sim/src/c.rs", "use crate::a::Y;");
        let three = "sim/src/a.rs -> sim/src/b.rs -> sim/src/c.rs -> sim/src/a.rs";
        check(&[(a, "use crate::b::X;"), (b, "use crate::c::Z;"), c], &[three]);
        // Another tree, and tests, are not asked.
        check(&[("src/a.rs", "use crate::b::X;"), ("src/b.rs", "use crate::a::Y;")], &[]);
        check(&[(a, "use crate::b::X;"), (b, "mod tests { use crate::a::Y; use super::*; }")], &[]);
    }

    #[test]
    fn imports_that_hide_a_circle() {
        let a = "sim/src/a.rs";
        // A re-export of a file that is no folder is an import.
        let circle = "sim/src/a.rs -> sim/src/b.rs -> sim/src/a.rs";
        check(&[(a, "pub use crate::b::X;"), ("sim/src/b.rs", "use crate::a::Y;")], &[circle]);
        let hidden = |path, text| hidden_imports(&Source::new(path, text)).len();
        assert_eq!(hidden(a, "use crate::b::*;\nuse crate::c as d;"), 2);
        assert_eq!(hidden(a, "mod inner { use super::*; }"), 1);
        assert_eq!(hidden(a, "use std::fmt::Write as _; use crate::b::X as Y;"), 0);
        assert_eq!(hidden(a, "mod tests { use super::*; }"), 0);
        assert_eq!(hidden("src/a.rs", "use crate::b::*;"), 0);
    }

    #[test]
    fn folders_and_their_leaves() {
        let folder = |text| ("sim/src/f/mod.rs", text);
        let leaf = |text| ("sim/src/f/leaf.rs", text);
        let other = |text| ("sim/src/f/other.rs", text);
        check(&[folder("mod leaf; pub use leaf::X;"), leaf("struct X;")], &[]);
        // The re-export stands for the leaf.
        let export = folder("mod leaf; mod other; pub use leaf::X;");
        check(&[export, leaf("struct X;"), other("use super::X;")], &[]);
        let circle = "sim/src/f/leaf.rs -> sim/src/f/other.rs -> sim/src/f/leaf.rs";
        check(&[export, leaf("use super::other::Y;"), other("use super::X;")], &[circle]);
        let down = "sim/src/f/mod.rs -> sim/src/f/leaf.rs -> sim/src/f/mod.rs";
        check(&[folder("mod leaf; fn f() { leaf::g() }"), leaf("use super::f;")], &[down]);
        check(
            &[
                folder("mod leaf; fn f() {} mod inner { use super::leaf::g; }"),
                leaf("use super::f;"),
            ],
            &[down],
        );
        check(&[folder("mod leaf; fn f() {}"), leaf("use super::f;")], &[]);
    }
}
