//! The keys under which members register, and which of them count. Pure: no connection, no clock.

use bytes::Bytes;

use crate::plant;

/// The keys of one token, and of one member in it.
pub(super) struct Registry {
    folder: String,
    own: String,
}

impl Registry {
    pub fn new(token: &str, member: &str) -> Self {
        let folder = format!("/_etcd/registry/{token}");
        let own = format!("{folder}/members/{member}");
        Self { folder, own }
    }

    pub fn size_key(&self) -> String {
        format!("{}/_config/size", self.folder)
    }

    /// As in etcd without a slash at its end.
    pub fn members_prefix(&self) -> String {
        format!("{}/members", self.folder)
    }

    pub fn own_key(&self) -> String {
        self.own.clone()
    }
}

/// The end of the range of all keys with this prefix.
pub(super) fn end_of(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // A prefix here ends with a letter.
        *last += 1;
    }
    end.into()
}

pub(super) fn size(value: &[u8]) -> Option<usize> {
    let size: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
    (size > 0).then_some(size)
}

/// The registered members, in the order in which they registered.
#[derive(Debug)]
pub(super) struct Standing {
    size: usize,
    members: Vec<Registered>,
}

#[derive(Debug)]
struct Registered {
    key: String,
    urls: String,
    revision: i64,
}

impl Standing {
    pub fn new(size: usize) -> Self {
        Self { size, members: Vec::new() }
    }

    /// With etcd's texts for what cannot be a member.
    pub fn add(
        &mut self,
        registry: &Registry,
        key: &str,
        urls: &str,
        revision: i64,
    ) -> Result<(), &'static str> {
        if !key.starts_with(&registry.members_prefix()) {
            return Err("invalid peer registry key");
        }
        if !urls.contains('=') {
            return Err("invalid peer info returned from discovery service");
        }
        if self.members.iter().any(|member| member.key == key) {
            return Err("found duplicate peer from discovery service");
        }
        let (key, urls) = (key.to_owned(), urls.to_owned());
        self.members.push(Registered { key, urls, revision });
        self.members.sort_by_key(|member| member.revision);
        Ok(())
    }

    pub fn missing(&self) -> usize {
        self.size.saturating_sub(self.members.len())
    }

    /// Whether there are enough, and this member is none of the first.
    pub fn excludes(&self, registry: &Registry) -> bool {
        let mut first = self.members.iter().take(self.size);
        let late = self.missing() == 0 && !first.any(|member| member.key == registry.own);
        late && !plant::LATECOMERS_LET_IN.is_planted()
    }

    /// The first so many, as `--initial-cluster` has them.
    pub fn cluster(&self) -> String {
        let first = self.members.iter().take(self.size);
        first.map(|member| member.urls.as_str()).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        let registry = Registry::new("tok", "8e9e05c52164694d");
        assert_eq!(registry.size_key(), "/_etcd/registry/tok/_config/size");
        assert_eq!(registry.own_key(), "/_etcd/registry/tok/members/8e9e05c52164694d");
        assert_eq!(end_of(&registry.members_prefix()), "/_etcd/registry/tok/membert");
        assert_eq!(size(b"3"), Some(3));
        for bad in [&b"0"[..], b"-1", b"x", b"", b"\xff"] {
            assert_eq!(size(bad), None);
        }
    }

    #[test]
    fn the_first_so_many_are_the_cluster() {
        let of = |member| Registry::new("t", member);
        let key = |member| of(member).own_key();
        let mut standing = Standing::new(2);
        let mine = of("c");
        assert_eq!(standing.add(&mine, &key("b"), "b=http://b:1", 7), Ok(()));
        assert_eq!((standing.missing(), standing.excludes(&mine)), (1, false));
        assert_eq!(standing.add(&mine, &key("a"), "a=http://a:1,a=http://a:2", 5), Ok(()));
        assert!(standing.excludes(&mine) && !standing.excludes(&of("a")));
        assert_eq!(standing.add(&mine, &key("c"), "c=http://c:1", 9), Ok(()));
        assert!(standing.excludes(&mine), "it came too late");
        assert_eq!(standing.cluster(), "a=http://a:1,a=http://a:2,b=http://b:1");
        assert_eq!(
            standing.add(&mine, &key("a"), "a=http://a:1", 11),
            Err("found duplicate peer from discovery service")
        );
        assert_eq!(
            standing.add(&mine, &key("d"), "nothing", 11),
            Err("invalid peer info returned from discovery service")
        );
        assert_eq!(
            standing.add(&mine, "/_etcd/registry/u/members/d", "d=x", 11),
            Err("invalid peer registry key")
        );
    }
}
