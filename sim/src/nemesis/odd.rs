//! Odd starts: a member is started by a command from which a flag is missing, so that its log or all of its
//! data is not where it looks. It must not begin anew as if the place had never been used; it may refuse to
//! start, or wait. Then it is started as before.

use std::time::Duration;

use super::acts::Nemesis;
use super::force::Force;
use crate::facts::shape::Flag;
use crate::facts::verdict::{Proof, Violation};

/// How long the odd start lasts, unless the server ends before.
const LASTS: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(100);

impl Nemesis {
    /// Step `number`: one host after the other is started without the flag.
    pub(super) async fn start_oddly(&self, number: usize, hosts: &[String], flag: Flag) {
        for host in hosts {
            let world = self.cluster.world();
            if !world.is_running(host) {
                continue;
            }
            // No other step is to start it meanwhile.
            self.hold(number, Force { down: [host.clone()].into(), ..Force::default() });
            self.cluster.excuse(host);
            world.kill(host);
            world.stopped(host).await;
            self.cluster.start_without(host, flag).await;
            let until = self.env.now() + LASTS;
            while world.is_running(host) && self.env.now() < until {
                if self.cluster.status(&self.env, host).await.is_some() {
                    self.found_serving(host, flag);
                    break;
                }
                self.env.sleep(LOOK).await;
            }
            world.kill(host);
            world.stopped(host).await;
        }
    }

    fn found_serving(&self, host: &str, flag: Flag) {
        let text = format!("{host} serves although it was started without --{flag}");
        let at_us = self.cluster.world().elapsed().as_micros() as u64;
        let proof = Proof::Member { host: host.to_owned(), at_us };
        let violation =
            Violation::new("odd-starts", "a used place is not taken for an empty one", text);
        self.evidence.record().violations.push(violation.proved_by(proof));
    }
}
