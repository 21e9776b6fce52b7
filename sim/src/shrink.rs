//! Makes a plan that fails smaller while it still fails in the same way: first it leaves out faults,
//! then clients, then operations and time, and at last everything that is unlike a calm cluster.
//! Lists are halved as by ddmin (Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing
//! Input, 2002). It knows plans only; whether one fails is decided by the caller.

use std::time::Duration;

use crate::facts::shape::Shape;
use crate::plan::{Plan, Weather};

/// Steps of a client from which its number of operations is halved.
const STEPS_TRIED: u64 = 1 << 10;
const LASTS_MIN: Duration = Duration::from_secs(1);

/// The smallest plan found for which `fails` is true, as it must be for `plan`, after calling it at most
/// `runs_max` times.
pub fn shrink(plan: &Plan, runs_max: usize, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { best: plan.clone(), runs_left: runs_max, fails };
    loop {
        let before = search.best.clone();
        search.drop_some(|plan| &mut plan.steps);
        search.drop_some(|plan| &mut plan.clients);
        search.end_earlier();
        search.fewer_operations();
        search.calmer();
        if search.best == before || search.runs_left == 0 {
            return search.best;
        }
    }
}

struct Search<F> {
    best: Plan,
    runs_left: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Keeps `plan` if it still fails.
    fn attempt(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let fails = (self.fails)(&plan);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Leaves out pieces of a list: halves of it, quarters, single ones.
    fn drop_some<T: Clone>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) {
        let mut size = list(&mut self.best).len();
        while size > 0 {
            let mut begin = 0;
            while begin < list(&mut self.best).len() {
                let mut plan = self.best.clone();
                let items = list(&mut plan);
                items.drain(begin..(begin + size).min(items.len()));
                if !self.attempt(plan) {
                    begin += size;
                }
            }
            size /= 2;
        }
    }

    fn end_earlier(&mut self) {
        loop {
            let lasts = (self.best.lasts / 2).max(LASTS_MIN);
            let mut plan = Plan { lasts, ..self.best.clone() };
            plan.steps.retain(|step| step.at < lasts);
            if !self.attempt(plan) {
                return;
            }
        }
    }

    fn fewer_operations(&mut self) {
        for at in 0..self.best.clients.len() {
            loop {
                let mut plan = self.best.clone();
                let client = &mut plan.clients[at];
                client.steps_max = (client.steps_max / 2).clamp(1, STEPS_TRIED);
                if !self.attempt(plan) {
                    break;
                }
            }
        }
    }

    fn calmer(&mut self) {
        self.attempt(Plan { weather: Weather::default(), ..self.best.clone() });
        let shape =
            Shape { learners: self.best.shape.learners, ..Shape::small(self.best.shape.members) };
        self.attempt(Plan { shape, ..self.best.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ClientPlan;

    /// A plan that fails while it has one kill and one client of the cause.
    #[test]
    fn a_known_minimum_is_found() {
        let mut plan: Plan = "lasts 30s
            loss 2%
            at 1s partition m0 | m1 m2 for 2s
            at 2s kill m1 for 1s
            at 3s pause m0 for 1s
            at 9s kill m2
            at 10s compact"
            .parse()
            .expect("a plan");
        plan.clients = (0..6).map(|number| ClientPlan::new(number, "register")).collect();
        plan.clients[4].workload = "lease".into();
        let mut runs = 0;
        let small = shrink(&plan, 1_000, |plan| {
            runs += 1;
            let lease = plan
                .clients
                .iter()
                .any(|client| client.workload == "lease" && client.steps_max >= 5);
            lease && plan.steps.iter().any(|step| step.fault.to_string() == "kill m2")
        });
        let text: Vec<_> = small.steps.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["at 9s kill m2"]);
        assert_eq!(small.clients.len(), 1);
        assert_eq!((small.clients[0].number, small.clients[0].steps_max), (4, 8));
        assert_eq!(small.weather, Weather::default());
        assert!(small.lasts <= Duration::from_secs(15), "{:?}", small.lasts);
        assert!(runs < 100, "{runs} runs");
    }

    #[test]
    fn it_asks_no_more_than_allowed() {
        let plan: Plan = "at 1s compact\nat 2s compact\nat 3s compact".parse().expect("a plan");
        let mut runs = 0;
        let fails = |_: &Plan| {
            runs += 1;
            true
        };
        shrink(&plan, 2, fails);
        assert_eq!(runs, 2);
    }
}
