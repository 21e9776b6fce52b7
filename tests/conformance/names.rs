//! From a page of metrics to what a dashboard stands on: names, kinds and names of labels. Values, texts
//! of help and the bounds of buckets are dropped.

use std::collections::{BTreeMap, BTreeSet};

/// One line a metric, as `"name" : kind {label, label}`.
pub fn of(page: &str) -> String {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            kinds.insert(name, kind);
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, its) = sample(line);
            labels.entry(family(name, &kinds)).or_default().extend(its);
        }
    }
    let line = |(name, labels): (&str, BTreeSet<&str>)| {
        let kind = kinds.get(name).unwrap_or(&"unknown");
        let labels: Vec<&str> = labels.into_iter().collect();
        format!("\"{name}\" : {kind} {{{}}}", labels.join(" "))
    };
    labels.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The name of a line and the names of its labels, without those that make up a histogram.
fn sample(line: &str) -> (&str, Vec<&str>) {
    let end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    // Every odd part stands inside quotes; no value of etcd's has any.
    let outside = rest.split('"').step_by(2);
    let labels = outside
        .filter_map(|text| text.strip_suffix('='))
        .map(|text| text.trim_start_matches(['{', ',']))
        .filter(|label| !matches!(*label, "le" | "quantile"));
    (name, labels.collect())
}

fn family<'a>(name: &'a str, kinds: &BTreeMap<&'a str, &str>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    parts.into_iter().find(|name| kinds.contains_key(name)).unwrap_or(name)
}
