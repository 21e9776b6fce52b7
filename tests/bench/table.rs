//! Figures of slices, and the table of ratios: least, median, greatest.

/// What one slice has shown.
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
    fn figures(&self) -> [f64; 5] {
        [self.per_second, self.p50_us, self.p99_us, self.cpu_us, self.resident_mb]
    }
}

const COLUMNS: [&str; 5] = ["req/s", "p50 us", "p99 us", "cpu us/req", "rss MB"];

pub fn head() {
    print!("{:<18}{:<10}", "scenario", "server");
    for column in COLUMNS {
        print!("{column:>18}");
    }
    println!();
}

/// Three lines: theirs and ours as medians, and the ratios of slices that followed each other.
pub fn rows(scenario: &str, etcd: &[Measured], ours: &[Measured]) {
    let of = |slices: &[Measured], column: usize| {
        sorted(slices.iter().map(|slice| slice.figures()[column]).collect())
    };
    for (name, server, slices) in [(scenario, "etcd", etcd), ("", "quorate", ours)] {
        row(name, server, |column| format!("{:.1}", median(&of(slices, column))));
    }
    row("", "ratio", |column| {
        let pairs = etcd.iter().zip(ours);
        let ratios = pairs.map(|(theirs, ours)| ours.figures()[column] / theirs.figures()[column]);
        let ratios = sorted(ratios.collect());
        format!("{:.2} {:.2} {:.2}", ratios[0], median(&ratios), ratios[ratios.len() - 1])
    });
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn row(scenario: &str, server: &str, figure: impl Fn(usize) -> String) {
    print!("{scenario:<18}{server:<10}");
    for column in 0..COLUMNS.len() {
        print!("{:>18}", figure(column));
    }
    println!();
}
