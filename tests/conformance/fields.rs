//! Splits a command's output into named fields, for each of etcdctl's formats, so that one differing
//! number is one difference and not a differing page. Which differences matter is not known here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::etcdctl::Output;

/// Fields that are not compared by value.
#[derive(Debug, Default)]
pub struct Masks {
    /// Names of fields whose values are left out; that they are there, and are numbers, is compared.
    pub names: Vec<String>,
    /// Text between a start and an end is left out.
    pub between: Vec<(String, String)>,
}

/// Paths such as `stdout.kvs.0.version` and their values.
#[derive(Debug, Default)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// `rename` is applied to every value.
    pub fn new(output: &Output, masks: &Masks, rename: &dyn Fn(&str) -> String) -> Self {
        let mut collect = Collect { masks, rename, fields: Self::default() };
        collect.put("code".into(), &output.code.map_or("stopped".into(), |code| code.to_string()));
        collect.stream("stdout", &output.stdout);
        collect.stream("stderr", &output.stderr);
        collect.fields
    }

    /// Path, ours and theirs wherever they are not equal.
    pub fn differences(&self, theirs: &Self) -> Vec<(String, Option<String>, Option<String>)> {
        let mut paths: Vec<&String> = self.0.keys().chain(theirs.0.keys()).collect();
        paths.sort();
        paths.dedup();
        let both = paths.into_iter().map(|path| (path, self.0.get(path), theirs.0.get(path)));
        both.filter(|(_, ours, theirs)| ours != theirs)
            .map(|(path, ours, theirs)| (path.clone(), ours.cloned(), theirs.cloned()))
            .collect()
    }
}

struct Collect<'a> {
    masks: &'a Masks,
    rename: &'a dyn Fn(&str) -> String,
    fields: Fields,
}

impl Collect<'_> {
    fn stream(&mut self, stream: &str, text: &str) {
        if let Some(json) = json(text) {
            return self.json(stream.into(), &json);
        }
        let mut header: Option<Vec<String>> = None;
        // Some input makes etcdctl itself panic; its stack is full of addresses.
        let text = text.split_once("\ngoroutine ").map_or(text, |(before, _)| before);
        for (number, line) in text.split('\n').enumerate() {
            if let Some(json) = json(line) {
                let path = if number == 0 { stream.into() } else { format!("{stream}:{number}") };
                self.json(path, &json);
            } else if let Some(json) = logged(line) {
                let path = if number == 0 { stream.into() } else { format!("{stream}:{number}") };
                self.json(path, &json);
            } else if let Some((name, value)) = named(line) {
                self.named(stream, name, value);
            } else if let Some(cells) = cells(line) {
                match &header {
                    None => header = Some(cells.clone()),
                    Some(header) => {
                        let header = header.clone();
                        for (name, cell) in header.iter().zip(&cells) {
                            self.leaf(format!("{stream}:{number}"), name, cell);
                        }
                        continue;
                    }
                }
                self.put(format!("{stream}:{number}"), &cells.join("|"));
            } else if ["+--", "┌─", "├─", "└─"].iter().any(|rule| line.starts_with(rule))
            {
                // The rules of a table are as wide as its cells, whose values may be masked.
            } else {
                self.simple(format!("{stream}:{number}"), line);
            }
        }
    }

    fn json(&mut self, path: String, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::Object(_) | Value::Array(_) => {
                            self.json(format!("{path}.{name}"), value);
                        }
                        leaf => self.leaf(path.clone(), name, &leaf.to_string()),
                    }
                }
            }
            Value::Array(items) => {
                for (i, value) in items.iter().enumerate() {
                    self.json(format!("{path}.{i}"), value);
                }
            }
            leaf => self.put(path, &leaf.to_string()),
        }
    }

    /// `-w fields` may print a name many times: the second `Key` is `Key#1`.
    fn named(&mut self, stream: &str, name: &str, value: &str) {
        let mut times = 0;
        let mut unique = name.to_owned();
        while self.fields.0.contains_key(&format!("{stream}.{unique}")) {
            times += 1;
            unique = format!("{name}#{times}");
        }
        let value = self.masked(name, value);
        self.put(format!("{stream}.{unique}"), &value);
    }

    fn simple(&mut self, path: String, line: &str) {
        let parts: Vec<&str> = line.split(", ").collect();
        match parts.as_slice() {
            [whole] => self.put(path, whole),
            parts => {
                for (i, part) in parts.iter().enumerate() {
                    self.leaf(path.clone(), &i.to_string(), part);
                }
            }
        }
    }

    fn leaf(&mut self, path: String, name: &str, value: &str) {
        let value = self.masked(name, value);
        self.put(format!("{path}.{name}"), &value);
    }

    fn put(&mut self, path: String, value: &str) {
        let mut value = (self.rename)(value);
        for (start, end) in &self.masks.between {
            value = hide(&value, start, end);
        }
        self.fields.0.insert(path, value);
    }

    fn masked(&self, name: &str, value: &str) -> String {
        if !self.masks.names.iter().any(|masked| masked == name) {
            return value.to_owned();
        }
        match value.trim_matches('"').parse::<f64>() {
            Ok(_) => "<number>".into(),
            Err(_) => "<text>".into(),
        }
    }
}

/// What is JSON and more than a value.
fn json(text: &str) -> Option<Value> {
    let json = serde_json::from_str::<Value>(text).ok();
    json.filter(|json| json.is_object() || json.is_array())
}

/// A log line for the console, `time\tlevel\tcaller\tmessage\t{fields}`, as the same one in JSON.
fn logged(line: &str) -> Option<Value> {
    let mut parts = line.splitn(5, '\t');
    let [ts, level, caller, msg] = [(); 4].map(|()| parts.next());
    let level = level.filter(|level| ["debug", "info", "warn", "error"].contains(level))?;
    let fields = parts.next().map_or(Some(Value::Object(Map::new())), json)?;
    let mut line = fields.as_object()?.clone();
    for (name, text) in [("ts", ts), ("level", Some(level)), ("caller", caller), ("msg", msg)] {
        line.insert(name.into(), text?.into());
    }
    Some(Value::Object(line))
}

/// `"Name" : value` of `-w fields`.
fn named(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('"')?.split_once("\" :")?;
    Some((name, value.trim()))
}

/// The cells of a row of `-w table`, whose bars are of either kind.
fn cells(line: &str) -> Option<Vec<String>> {
    let bars = ['|', '│'];
    let row = line.strip_prefix(bars)?.strip_suffix(bars)?;
    Some(row.split(bars).map(|cell| cell.trim().to_owned()).collect())
}

/// Replaces what stands between `start` and `end` (or the end of the line).
fn hide(text: &str, start: &str, end: &str) -> String {
    let Some((before, rest)) = text.split_once(start) else { return text.to_owned() };
    let after = match end {
        "" => "",
        end => rest.split_once(end).map_or("", |(_, after)| after),
    };
    format!("{before}{start}<hidden>{end}{}", hide(after, start, end))
}
