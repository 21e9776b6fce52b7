//! Plans as text: what is printed is read again as the same plan, whatever it is, and what makes no
//! sense is refused with the line that makes none.

use proptest::prelude::*;
use sim::plan::Plan;
use sim::swarm;

proptest! {
    #[test]
    fn what_is_printed_is_read_again(seed: u64) {
        let plan = swarm::draw(seed);
        let text = plan.to_string();
        let read: Plan = text.parse().expect("what was printed");
        prop_assert_eq!(&read, &plan, "{}", text);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn no_text_is_too_strange(text in "(at|seed|client|partition|m0|\\||for|5s|by|\n| )*") {
        // An answer is enough.
        let _ = text.parse::<Plan>();
    }
}

#[test]
fn every_fault_is_read_as_it_is_written() {
    let steps = "\
at 500ms partition leader | others for 6s
at 1s partition m0 c1 | m2 for 1.5s
at 1.2s one-way m0 -> m1 m2 for 500ms
at 1.5s flaky m0 | others every 300ms for 4s
at 2s delay m1 by 80ms for 2s
at 2s loss 5% for 2s
at 2s reset all
at 3s kill leader for 3s
at 4s power m0 for 2s
at 4s power m1 at 37 for 2s
at 5s pause follower for 1s
at 5s jump m0 by -3s for 10s
at 5s drift m1 by 400ppm for 10s
at 6s slow-disk m0 by 20ms..200ms for 2s
at 6s stall-log m0 by 2s..3s for 2s
at 7s fail-sync m0 for 2s
at 7s full-disk m0 for 2s
at 8s rot m2 tail
at 8s move-leader m1
at 9s compact
at 9s defrag m0 m1
at 9s restart every 2s
at 9.5s backup leader
at 10s add m3
at 10s add m4 learner
at 11s promote m4
at 12s remove m1
at 13s replace m2 by m5
at 14s kill p0 for 1s
at 15s rotate-certs m0 leader
at 16s forget wal-dir m0 m1
at 16s forget data-dir leader
at 16.5s migrate m0 leader
at 16.6s migrate m0 back
at 17s swap m0 m1 for 3s
at 17s update leader
at 17s ask-promotions
at 18s upon install-begins kill there for 1s
at 18s upon snapshot-arrives power there at 3 for 1s
";
    let plan: Plan = format!("tls yes\nwal-apart yes\netcd 3.5\n{steps}")
        .parse()
        .expect("steps that make sense");
    let printed: String = plan.steps.iter().map(|step| format!("{step}\n")).collect();
    assert_eq!(printed, steps);
}

#[test]
fn nonsense_is_refused_with_its_line() {
    let refused = |text: &str| text.parse::<Plan>().expect_err("nonsense");
    assert!(refused("members 3\nmembers many").starts_with("line 2: members many"));
    assert!(refused("members 9").contains("1 to 7"));
    assert!(refused("at 5s explode m0").contains("no fault is called"));
    assert!(refused("at 5s partition m0").contains("two groups"));
    assert!(refused("client c1 kv\nclient c1 kv").contains("one number"));
    assert!(refused("speed 3").contains("nothing is called speed"));
    assert!(refused("traced 1000001").contains("of a million"));
    assert!(refused("client stranger").contains("no certificates"));
    assert!(refused("at 5s rotate-certs m0").contains("no certificates"));
    assert!(refused("at 5s forget wal-dir m0").contains("no flag to forget"));
    assert!(refused("at 5s migrate m0").contains("none is an etcd"));
    assert!(refused("etcd 2.3").contains("no release"));
    assert!(refused("at 5s upon something kill m0").contains("no mark of that name"));
    assert!(refused("at 5s kill there").contains("where a mark was reached"));
    assert!(refused("proxies 4").contains("3 proxies at most"));
    assert!(refused("proxies 1\nclient register at p1").contains("which there is not"));
    assert!(refused("proxies 1\nclient register at p0 by json").contains("no JSON"));
    let named = "proxies 1\nproxy-namespace in/\nclient counter at p0";
    assert!(refused(named).contains("without a namespace"));
}
