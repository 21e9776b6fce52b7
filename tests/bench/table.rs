//! Figures of rounds, their medians, and the table.

/// What one round has shown.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Of the servers together, for one request.
    pub cpu_us: f64,
    /// Of the servers together, after the load.
    pub resident_mb: f64,
}

impl Measured {
    /// Of each figure by itself.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            per_second: of(|m| m.per_second),
            p50_us: of(|m| m.p50_us),
            p99_us: of(|m| m.p99_us),
            cpu_us: of(|m| m.cpu_us),
            resident_mb: of(|m| m.resident_mb),
        }
    }

    fn figures(&self) -> [f64; 5] {
        [self.per_second, self.p50_us, self.p99_us, self.cpu_us, self.resident_mb]
    }
}

const COLUMNS: [&str; 5] = ["req/s", "p50 us", "p99 us", "cpu us/req", "rss MB"];

pub fn head() {
    print!("{:<18}{:<10}", "scenario", "server");
    for column in COLUMNS {
        print!("{column:>12}");
    }
    println!();
}

/// Three lines: theirs, ours, ours divided by theirs.
pub fn rows(scenario: &str, etcd: &Measured, ours: &Measured) {
    row(scenario, "etcd", etcd.figures(), 1);
    row("", "quorate", ours.figures(), 1);
    let mut ratios = ours.figures();
    for (ratio, theirs) in ratios.iter_mut().zip(etcd.figures()) {
        *ratio /= theirs;
    }
    row("", "ratio", ratios, 2);
}

fn row(scenario: &str, server: &str, figures: [f64; 5], decimals: usize) {
    print!("{scenario:<18}{server:<10}");
    for figure in figures {
        print!("{figure:>12.decimals$}");
    }
    println!();
}
