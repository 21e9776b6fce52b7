//! A page of metrics in the text format of Prometheus, and what two of them show in between: rates, and
//! quantiles of histograms.

use std::collections::BTreeMap;

/// The samples of a page, by name and then by labels.
#[derive(Clone, Debug, Default)]
pub struct Page {
    samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

type Labels = BTreeMap<String, String>;

impl Page {
    /// Lines that are no samples are passed over.
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            page.samples.entry(name.to_owned()).or_default().push((labels, value));
        }
        page
    }

    /// The sum over all labels; `None` when there is no such metric.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.samples.get(name).map(|samples| samples.iter().map(|(_, value)| value).sum())
    }

    /// Sums by the value of one label.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples.get(name).into_iter().flatten() {
            if let Some(key) = labels.get(label) {
                *sums.entry(key.clone()).or_default() += value;
            }
        }
        sums
    }

    /// The same of the samples in which another label does not have the given value.
    pub fn by_unless(
        &self,
        name: &str,
        label: &str,
        unless: (&str, &str),
    ) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples.get(name).into_iter().flatten() {
            if labels.get(unless.0).is_some_and(|has| has == unless.1) {
                continue;
            }
            if let Some(key) = labels.get(label) {
                *sums.entry(key.clone()).or_default() += value;
            }
        }
        sums
    }

    /// The quantile of a histogram between an earlier page and this one, seconds; of the samples of which
    /// `label` has the given value. `None` when nothing was observed in between.
    pub fn quantile(
        &self,
        before: &Self,
        name: &str,
        label: Option<(&str, &str)>,
        quantile: f64,
    ) -> Option<f64> {
        let now = self.buckets(name, label);
        let before = before.buckets(name, label);
        let counts: Vec<(f64, f64)> = now
            .iter()
            .map(|(bound, count)| {
                let was = before.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, n)| *n);
                (*bound, count - was)
            })
            .collect();
        let total = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let wanted = quantile * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= wanted {
                // The last bucket has no upper bound: its lower one is all that is known.
                if bound.is_infinite() || count <= below {
                    return Some(lower);
                }
                return Some(lower + (bound - lower) * (wanted - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }

    /// Upper bounds and cumulated counts, ascending, summed over the other labels.
    fn buckets(&self, name: &str, label: Option<(&str, &str)>) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.samples.get(&format!("{name}_bucket")).into_iter().flatten() {
            if label.is_some_and(|(name, value)| labels.get(name).is_none_or(|has| has != value)) {
                continue;
            }
            let Some(bound) = labels.get("le").and_then(|bound| number(bound)) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, *count)),
            }
        }
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        buckets
    }
}

/// `name{label="value",...} value`.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        None => (Labels::new(), rest),
        Some(rest) => labels(rest)?,
    };
    Some((name, labels, number(rest.split_whitespace().next()?)?))
}

/// The labels up to the closing brace, and what stands behind it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        rest = loop {
            match chars.next()? {
                (at, '"') => break &quoted[at + 1..],
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.insert(name.to_owned(), value);
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_page_breaks_the_reader(text in "[a-z_]{0,3}[{}=,\" \\\\\n+Inf0-9.a-z]{0,40}\\PC{0,10}") {
            let page = Page::parse(&text);
            let _ = page.quantile(&Page::default(), "a", None, 0.99);
        }
    }

    const PAGE: &str = "\
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{method=\"Range\",code=\"OK\"} 10
calls_total{method=\"Range\",code=\"Un\\\"known\"} 2
calls_total{method=\"Put\",code=\"OK\"} 1e3
plain 7
took_bucket{method=\"Put\",le=\"0.001\"} 50
took_bucket{method=\"Put\",le=\"0.002\"} 90
took_bucket{method=\"Put\",le=\"+Inf\"} 100
not a sample
";

    #[test]
    fn samples_are_summed_by_a_label() {
        let page = Page::parse(PAGE);
        assert_eq!(page.sum("plain"), Some(7.0));
        assert_eq!(page.sum("absent"), None);
        let by = page.by("calls_total", "method");
        assert_eq!(by, BTreeMap::from([("Put".into(), 1000.0), ("Range".into(), 12.0)]));
        assert_eq!(page.by("calls_total", "code")["Un\"known"], 2.0);
    }

    #[test]
    fn quantiles_are_of_what_was_observed_in_between() {
        let (none, page) = (Page::default(), Page::parse(PAGE));
        let quantile = |before: &Page, q| page.quantile(before, "took", Some(("method", "Put")), q);
        let close = |found: Option<f64>, wanted: f64| {
            assert!(found.is_some_and(|found| (found - wanted).abs() < 1e-9), "{found:?} {wanted}");
        };
        close(quantile(&none, 0.25), 0.000_5);
        close(quantile(&none, 0.7), 0.001_5);
        // Beyond the last bound, that is all that is known.
        close(quantile(&none, 0.99), 0.002);
        assert_eq!(quantile(&page, 0.5), None);
        assert_eq!(page.quantile(&none, "took", Some(("method", "Range")), 0.5), None);
        close(page.quantile(&none, "took", None, 0.25), 0.000_5);
    }
}
