//! `--initial-cluster`: names and peer URLs of the first members, and etcd's checks of it before a
//! member starts without a log.

use std::collections::BTreeMap;

use super::go;
use super::urls::{Url, join};

/// Peer URLs by member name, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster(BTreeMap<String, Vec<Url>>);

impl InitialCluster {
    /// `name=url[,name=url...]`; a name that comes again gets another URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
            members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Self(members))
    }

    pub fn members(&self) -> impl Iterator<Item = (&str, &[Url])> {
        self.0.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// The rule for every member that has no log yet: it is listed, and no URL is listed twice.
    pub(crate) fn check_joining(&self, name: &str) -> Result<(), String> {
        self.check_listed(name)?;
        self.check_duplicates()
    }

    /// The rules for a member of a new cluster: it is listed, with the URLs that it advertises, and
    /// no URL is listed twice.
    pub(crate) fn check_new(&self, name: &str, advertised: &[Url]) -> Result<(), String> {
        self.check_listed(name)?;
        self.check_advertised(name, advertised)?;
        self.check_duplicates()
    }

    fn check_listed(&self, name: &str) -> Result<(), String> {
        match self.0.contains_key(name) {
            true => Ok(()),
            false => Err(format!(
                "couldn't find local name {} in the initial cluster configuration",
                go::quote(name)
            )),
        }
    }

    /// Whether a URL is listed twice.
    pub fn has_duplicates(&self) -> bool {
        let mut urls: Vec<_> = self.0.values().flatten().collect();
        urls.sort();
        urls.windows(2).any(|pair| pair[0] == pair[1])
    }

    fn check_duplicates(&self) -> Result<(), String> {
        match self.has_duplicates() {
            true => Err(format!("initial cluster {self} has duplicate url")),
            false => Ok(()),
        }
    }

    /// `localhost` and 127.0.0.1 count as equal; other names are compared as texts.
    fn check_advertised(&self, name: &str, advertised: &[Url]) -> Result<(), String> {
        let listed = &self.0[name];
        let equal = listed.len() == advertised.len()
            && listed.iter().all(|url| advertised.iter().any(|other| url.same_place(other)));
        if equal {
            return Ok(());
        }
        let lacks = |url: &&Url, list: &[Url]| !list.contains(url);
        let missing: Vec<_> = listed.iter().filter(|url| lacks(url, advertised)).collect();
        if !missing.is_empty() {
            let missing: Vec<_> = missing.iter().map(|url| format!("{name}={url}")).collect();
            return Err(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({})",
                missing.join(","),
                join(advertised),
                difference(advertised, listed)
            ));
        }
        let missing: Vec<_> = advertised.iter().filter(|url| lacks(url, listed)).cloned().collect();
        if missing.is_empty() {
            // One is listed more often in one of the two.
            return Err(format!(
                "failed to resolve {} to match --initial-cluster={} ({})",
                join(advertised),
                Self::of(name, advertised),
                difference(advertised, listed)
            ));
        }
        Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            join(&missing),
            Self::of(name, advertised)
        ))
    }

    /// The cluster of one member.
    pub(crate) fn of(name: &str, urls: &[Url]) -> Self {
        Self(BTreeMap::from([(name.to_owned(), urls.to_vec())]))
    }
}

/// What differs between the two: their lengths, or the first two URLs that do. Names are not resolved.
fn difference(advertised: &[Url], listed: &[Url]) -> String {
    let quoted = |urls: &[Url]| {
        let urls: Vec<_> = urls.iter().map(|url| go::quote(url.as_str())).collect();
        urls.join(" ")
    };
    if advertised.len() != listed.len() {
        return format!("len([{}]) != len([{}])", quoted(advertised), quoted(listed));
    }
    let sorted = |urls: &[Url]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let mut pairs = sorted(advertised).into_iter().zip(sorted(listed));
    let differs = pairs.find(|(ours, theirs)| !ours.same_place(theirs));
    let (ours, theirs) = differs.expect("lists of equal places are not compared");
    format!("resolved urls: {} != {}", go::quote(ours.as_str()), go::quote(theirs.as_str()))
}

impl std::fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs: Vec<_> = self
            .members()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        f.write_str(&pairs.join(","))
    }
}
