//! The story in lines: the plan, a legend, every event in three columns (time, subject, action), and at the
//! end what was violated, with the events that prove it once more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::line::{Lines, one_line, seconds, who};
use super::proof::{self, by_property, find, marks};
use crate::facts::story::{Event, What};
use crate::facts::verdict::{Verdict, Violation};

const LEGEND: &str = "\
time    simulated seconds since the world began
who     m0 a member, c0 a client, w0 a watch stream, f0 a fault of the plan (counted from 0)
what    -> what came of a call: the revision it was answered at; refused: it has not happened;
        unknown: it may have happened, or may happen yet. A call stands where it ended.
!1      proves that property 1 was violated, see the end
";

/// How many violations of one property are printed; further ones are usually consequences of the same cause.
const TIMES_MAX: usize = 5;

/// Every event of a run, one a line, and what was violated.
pub fn text(verdict: &Verdict) -> String {
    let mut page = String::new();
    write(&mut page, verdict).expect("a string grows");
    page
}

fn write(page: &mut String, verdict: &Verdict) -> fmt::Result {
    writeln!(page, "{}\n\n{LEGEND}", verdict.plan.trim_end())?;
    let table = Table::new(verdict);
    writeln!(page, "{:>12} {:4} {:width$} what", "time", "", "who", width = table.who_width)?;
    for (at, event) in verdict.story.iter().enumerate() {
        table.write(page, at, event)?;
    }
    for (number, violations) in (1..).zip(by_property(verdict)) {
        writeln!(page)?;
        table.write_property(page, number, &violations)?;
    }
    writeln!(page, "\n{}", head(verdict))
}

/// The whole verdict in a line.
fn head(verdict: &Verdict) -> String {
    let Verdict { seed, answered, revision, simulated, digest, .. } = verdict;
    let checked = match verdict.violations.len() {
        0 => "passed".to_owned(),
        _ => format!("VIOLATED ({})", by_property(verdict).len()),
    };
    let simulated = simulated.as_secs_f64();
    format!(
        "seed {seed}: {checked}; {simulated:.1} s simulated, {answered} calls answered, \
         revision {revision}, digest {digest:016x}"
    )
}

/// The story as lines with aligned columns.
struct Table<'a> {
    verdict: &'a Verdict,
    lines: Lines<'a>,
    marks: BTreeMap<usize, BTreeSet<usize>>,
    who_width: usize,
}

impl<'a> Table<'a> {
    fn new(verdict: &'a Verdict) -> Self {
        let widths = verdict.story.iter().map(|event| who(&event.what).len());
        Self {
            verdict,
            lines: Lines::new(&verdict.story),
            marks: marks(verdict),
            who_width: widths.max().unwrap_or(0).max("who".len()),
        }
    }

    fn write(&self, page: &mut String, at: usize, event: &Event) -> fmt::Result {
        let marks = self.marks.get(&at).into_iter().flatten();
        let mark: String = marks.map(|number| format!("!{number}")).collect();
        let (time, who, what) = (seconds(event.at), who(&event.what), self.lines.what(event));
        if matches!(event.what, What::Phase { .. }) {
            writeln!(page)?;
        }
        writeln!(page, "{time:>12} {mark:4} {who:width$} {what}", width = self.who_width)
    }

    fn write_property(
        &self,
        page: &mut String,
        number: usize,
        violations: &[&Violation],
    ) -> fmt::Result {
        let Violation { checker, property, .. } = violations[0];
        writeln!(page, "!{number} VIOLATED: {property}  (checker {checker})")?;
        for violation in violations.iter().take(TIMES_MAX) {
            self.write_violation(page, violation)?;
        }
        match violations.len().saturating_sub(TIMES_MAX) {
            0 => Ok(()),
            more => writeln!(page, "   and {more} times more"),
        }
    }

    fn write_violation(&self, page: &mut String, violation: &Violation) -> fmt::Result {
        let Violation { text, proof, .. } = violation;
        text.lines().try_for_each(|line| writeln!(page, "   {}", one_line(line)))?;
        if !proof.is_empty() {
            writeln!(page, "   proved by")?;
        }
        for proof in proof {
            match find(&self.verdict.story, proof) {
                Some(at) => self.write(page, at, &self.verdict.story[at])?,
                None => writeln!(page, "{:>12} {}", "", proof::name(proof))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::sample;
    use super::text;

    #[test]
    fn a_run_that_passed_is_told_line_by_line() {
        expect![[r#"
            seed 7
            members 3
            client c0 kv at any
            at 1s kill leader for 2s

            time    simulated seconds since the world began
            who     m0 a member, c0 a client, w0 a watch stream, f0 a fault of the plan (counted from 0)
            what    -> what came of a call: the revision it was answered at; refused: it has not happened;
                    unknown: it may have happened, or may happen yet. A call stands where it ended.
            !1      proves that property 1 was violated, see the end

                    time      who what

                0.000000          -- setup --
                0.000000      m0  started
                0.000000      m1  started
                0.900000      m0  leader           term 2, commit 3, applied 3
                0.900000      m1  follower of m0   term 2, commit 3, applied 3

                1.000000          -- faults --
                1.400000      c0  put k = 1 -> revision 2  (kv, 20.0 ms)
                1.500000      w0  m1: watch begins, from revision 1 on
                1.500800      w0  m1: revision 2 (1 event)
                2.000000      f0  kill leader for 2s: m0
                2.000000      m0  killed
                2.100000      m0  silent           term 2, commit 3, applied 3
                3.100000      c0  put k = 2 -> unknown: no answer  (kv, 1000.0 ms)
                3.200000      m1  info: role role=Leader term=3
                3.250000      m1  leader           term 3, commit 4, applied 4
                4.000000      f0  over: kill leader for 2s
                4.000000      m0  started
                4.300000      m0  follower of none term 3, commit 4, applied 4
                4.500100      c1  get k at 9 -> refused: etcdserver: mvcc: required revision is a future revision  (kv, 0.1 ms)
                5.000000      w0  m1: progress to 3
                5.500000      w0  m1: watch ends: cancelled

                6.000000          -- verify --

            seed 7: passed; 9.0 s simulated, 3 calls answered, revision 3, digest feed000000000007
        "#]].assert_eq(&text(&sample::passed()));
    }

    #[test]
    fn what_was_violated_comes_last_with_its_proof() {
        let page = text(&sample::violated());
        let last = page.find("\n!1 VIOLATED").expect("it is in the page");
        expect![[r#"

            !1 VIOLATED: reads see the newest write  (checker replay)
               get </script><!--
                -> 2 of them: revision 2, but 3 had been answered
               proved by
                3.100000 !1   c0  put k = 2 -> unknown: no answer  (kv, 1000.0 ms)
                6.001000 !1   c1  get </script><!--\n -> revision 2  (kv, 0.7 ms)
                         the call of c9 that began at 0.000001 s

            !2 VIOLATED: no event is left out  (checker watches)
               revision 3 is missing
               proved by
                5.000000 !2   w0  m1: progress to 3
                3.250000 !2   m1  leader           term 3, commit 4, applied 4

            seed 7: VIOLATED (2); 9.0 s simulated, 4 calls answered, revision 3, digest feed000000000007
        "#]].assert_eq(&page[last..]);
        let marked = page[..last].lines().filter(|line| line.contains(" !"));
        let marked: Vec<&str> = marked.map(str::trim_start).collect();
        expect![[r#"
                3.100000 !1   c0  put k = 2 -> unknown: no answer  (kv, 1000.0 ms)
                3.250000 !2   m1  leader           term 3, commit 4, applied 4
                5.000000 !2   w0  m1: progress to 3
                6.001000 !1   c1  get </script><!--\n -> revision 2  (kv, 0.7 ms)"#]]
        .assert_eq(&marked.join("\n"));
    }
}
