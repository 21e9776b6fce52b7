//! The table of members over a real store: etcd's JSON, and what each change is refused for.

use std::path::Path;

use super::*;
use crate::engine::{Engine, Options, Place};
use crate::types::{Index, Term};

struct Table {
    store: Store,
    members: Membership,
}

impl Table {
    fn new() -> Self {
        let place = Place::mem_env().expect("an environment");
        let engine = Engine::open(Path::new("/db"), &Options::in_memory(place)).expect("opens");
        let store = Store::open(engine).expect("loads");
        let members = Membership { learners_max: 1, ..Membership::default() };
        Self { store, members }
    }

    fn apply(&mut self, change: &ConfChange) -> Result<(), Refused> {
        let before = self.members.clone();
        let mut write = self.store.begin();
        let index = Index(write.applied().0 + 1);
        write.start_entry(index, Term(1));
        let done = self.members.apply(&mut write, change);
        write.commit().expect("commits");
        if done.is_err() {
            assert_eq!(self.members, before, "a refusal changes nothing");
        }
        let mut stored = Membership::load(&self.store).expect("loads");
        stored.learners_max = self.members.learners_max;
        assert_eq!(stored, self.members, "what is stored is what is known");
        done
    }
}

fn voter(id: u64) -> MemberRecord {
    MemberRecord { id, peer_urls: vec![format!("http://m{id}:1")], ..MemberRecord::default() }
}

fn learner(id: u64) -> MemberRecord {
    MemberRecord { is_learner: true, ..voter(id) }
}

#[test]
fn contexts_are_etcds() {
    let check = |change: ConfChange, kind: i32, context: &str| {
        assert_eq!((change.r#type, &change.context[..]), (kind, context.as_bytes()));
    };
    check(add_change(&voter(10)), 0, r#"{"id":10,"peerURLs":["http://m10:1"]}"#);
    check(add_change(&learner(9)), 3, r#"{"id":9,"peerURLs":["http://m9:1"],"isLearner":true}"#);
    check(promote_change(MemberId(9)), 0, r#"{"id":9,"peerURLs":[],"isPromote":true}"#);
    check(update_change(MemberId(9), vec!["u".into()]), 2, r#"{"id":9,"peerURLs":["u"]}"#);
    check(remove_change(MemberId(9)), 1, "");
}

#[test]
fn gos_null_is_an_empty_list() {
    let json = r#"{"id":9,"peerURLs":null,"clientURLs":null,"isPromote":true}"#;
    let context: ChangeContext = serde_json::from_str(json).expect("decodes");
    assert_eq!(context.member, MemberRecord { id: 9, ..MemberRecord::default() });
    assert!(context.is_promote);
}

#[test]
fn additions_are_refused_by_id_and_url() {
    let mut table = Table::new();
    assert_eq!(table.apply(&add_change(&voter(1))), Ok(()));
    assert_eq!(table.apply(&add_change(&voter(1))), Err(Refused::MemberExists));
    let same_url = MemberRecord { peer_urls: voter(1).peer_urls, ..voter(2) };
    assert_eq!(table.apply(&add_change(&same_url)), Err(Refused::PeerUrlExists));
    assert_eq!(table.apply(&add_change(&voter(2))), Ok(()));
}

#[test]
fn learners_are_bounded_and_become_voters_once() {
    let mut table = Table::new();
    assert_eq!(table.apply(&add_change(&voter(1))), Ok(()));
    assert_eq!(table.apply(&add_change(&learner(2))), Ok(()));
    assert_eq!(table.apply(&add_change(&learner(3))), Err(Refused::TooManyLearners));
    assert_eq!(table.apply(&promote_change(MemberId(3))), Err(Refused::MemberNotFound));
    assert_eq!(table.apply(&promote_change(MemberId(2))), Ok(()));
    assert_eq!(table.apply(&promote_change(MemberId(2))), Err(Refused::MemberNotLearner));
    assert_eq!(table.apply(&add_change(&learner(3))), Ok(()));
    assert_eq!((table.members.voters().count(), table.members.learners()), (2, 1));
}

#[test]
fn a_removed_id_never_returns_and_its_url_may() {
    let mut table = Table::new();
    for id in 1..=2 {
        assert_eq!(table.apply(&add_change(&voter(id))), Ok(()));
    }
    assert_eq!(table.apply(&remove_change(MemberId(3))), Err(Refused::MemberNotFound));
    assert_eq!(table.apply(&remove_change(MemberId(2))), Ok(()));
    for change in [
        add_change(&voter(2)),
        add_change(&learner(2)),
        remove_change(MemberId(2)),
        promote_change(MemberId(2)),
        update_change(MemberId(2), vec![]),
    ] {
        assert_eq!(table.apply(&change), Err(Refused::MemberNotFound), "{change:?}");
    }
    let back = MemberRecord { peer_urls: voter(2).peer_urls, ..voter(4) };
    assert_eq!(table.apply(&add_change(&back)), Ok(()));
}

#[test]
fn the_last_voter_stays() {
    let mut table = Table::new();
    assert_eq!(table.apply(&add_change(&voter(1))), Ok(()));
    assert_eq!(table.apply(&add_change(&learner(2))), Ok(()));
    assert_eq!(table.apply(&remove_change(MemberId(1))), Err(Refused::NotEnoughStarted));
    assert_eq!(table.apply(&remove_change(MemberId(2))), Ok(()));
}

#[test]
fn urls_move_unless_they_are_anothers() {
    let mut table = Table::new();
    for id in 1..=2 {
        assert_eq!(table.apply(&add_change(&voter(id))), Ok(()));
    }
    let taken = update_change(MemberId(1), voter(2).peer_urls);
    assert_eq!(table.apply(&taken), Err(Refused::PeerUrlExists));
    let unknown = update_change(MemberId(3), vec!["http://x:1".into()]);
    assert_eq!(table.apply(&unknown), Err(Refused::MemberNotFound));
    assert_eq!(table.apply(&update_change(MemberId(1), vec!["http://x:1".into()])), Ok(()));
    assert_eq!(table.members.members[&MemberId(1)].peer_urls, ["http://x:1"]);
}

#[test]
fn a_downgrade_is_stored_as_etcd_stores_it() {
    let mut table = Table::new();
    let mut set = |target: Option<&str>| {
        let mut write = table.store.begin();
        let index = Index(write.applied().0 + 1);
        write.start_entry(index, Term(1));
        table.members.set_downgrade(&mut write, target.map(str::to_owned));
        write.commit().expect("commits");
        let stored = Membership::load(&table.store).expect("loads");
        assert_eq!(stored.downgrade, table.members.downgrade);
        let row = table.store.view().get(Cf::Cluster, b"downgrade").expect("read").expect("there");
        String::from_utf8(row.to_vec()).expect("JSON")
    };
    assert_eq!(set(Some("3.6.0")), r#"{"target-version":"3.6.0","enabled":true}"#);
    assert_eq!(set(None), r#"{"target-version":"","enabled":false}"#);
}
