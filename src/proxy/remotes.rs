//! The endpoints of a gateway: their state, and the choice for the next connection. No connections, no
//! clock.

use crate::env::Service;

/// In the order in which they were given.
pub(super) struct Remotes {
    all: Vec<Remote>,
    /// Position of the round robin.
    picked: usize,
}

#[derive(Debug)]
struct Remote {
    service: Service,
    address: String,
    active: bool,
}

impl Remotes {
    pub fn new(services: Vec<Service>) -> Self {
        let remote = |service: Service| {
            let address = host_port(&service);
            Remote { service, address, active: true }
        };
        Self { all: services.into_iter().map(remote).collect(), picked: 0 }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|remote| remote.address.clone()).collect()
    }

    /// Picks the next endpoint, if any is active: among those of the lowest priority by weight, or in turn if
    /// none has a weight. `draw` returns a number below its argument.
    pub fn pick(&mut self, mut draw: impl FnMut(u64) -> u64) -> Option<String> {
        let active = || self.all.iter().filter(|remote| remote.active);
        let best = active().map(|remote| remote.service.priority).min()?;
        let best = || active().filter(|remote| remote.service.priority == best);
        let sum: u64 = best().map(|remote| u64::from(remote.service.weight)).sum();
        let weightless: Vec<String> = best()
            .filter(|remote| remote.service.weight == 0)
            .map(|remote| remote.address.clone())
            .collect();
        // Endpoints without a weight are picked with a very small probability (RFC 2782).
        if sum == 0 || (!weightless.is_empty() && draw(100) == 1) {
            self.picked += 1;
            return Some(weightless[(self.picked - 1) % weightless.len()].clone());
        }
        let mut left = draw(sum);
        let chosen = best().find(|remote| {
            let here = left < remote.service.weight.into();
            left = left.saturating_sub(remote.service.weight.into());
            here
        });
        chosen.map(|remote| remote.address.clone())
    }

    pub fn set_active(&mut self, address: &str, active: bool) {
        let remotes = self.all.iter_mut().filter(|remote| remote.address == address);
        remotes.for_each(|remote| remote.active = active);
    }

    pub fn inactive(&self) -> Vec<String> {
        let inactive = self.all.iter().filter(|remote| !remote.active);
        inactive.map(|remote| remote.address.clone()).collect()
    }
}

fn host_port(service: &Service) -> String {
    let Service { target, port, .. } = service;
    if target.contains(':') { format!("[{target}]:{port}") } else { format!("{target}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(all: &[(u16, u16)]) -> Remotes {
        let service = |(port, &(priority, weight)): (u16, &(u16, u16))| Service {
            priority,
            weight,
            port,
            target: "m".into(),
        };
        Remotes::new((1..).zip(all).map(service).collect())
    }

    fn picks(remotes: &mut Remotes, draws: &[u64]) -> String {
        let pick = |draw: &u64| remotes.pick(|below| draw % below).unwrap_or("none".into());
        draws.iter().map(pick).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn those_without_weight_take_turns() {
        let mut all = remotes(&[(0, 0), (0, 0), (0, 0)]);
        assert_eq!(picks(&mut all, &[0, 0, 0, 0]), "m:1 m:2 m:3 m:1");
        all.set_active("m:2", false);
        assert_eq!(all.inactive(), ["m:2"]);
        assert_eq!(picks(&mut all, &[0, 0, 0]), "m:1 m:3 m:1");
        all.set_active("m:2", true);
        assert_eq!(picks(&mut all, &[0, 0, 0]), "m:2 m:3 m:1");
        all.addresses().iter().for_each(|address| all.set_active(address, false));
        assert_eq!(picks(&mut all, &[0]), "none");
    }

    #[test]
    fn others_are_drawn_by_weight_from_the_lowest_priority() {
        let mut all = remotes(&[(1, 1), (1, 3), (2, 100)]);
        assert_eq!(picks(&mut all, &[0, 1, 2, 3]), "m:1 m:2 m:2 m:2");
        all.set_active("m:1", false);
        all.set_active("m:2", false);
        assert_eq!(picks(&mut all, &[7]), "m:3");
        let mut mixed = remotes(&[(1, 5), (1, 0)]);
        assert_eq!(picks(&mut mixed, &[0, 1, 2]), "m:1 m:2 m:1");
    }
}
