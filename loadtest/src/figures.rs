//! What runs find, as plain structs: scenarios fill them, reports print and draw them.

use crate::report::Quartiles;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A figure that was taken several times.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub all: Vec<f64>,
}

impl Spread {
    /// None of nothing.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let Quartiles { low, median, high } = Quartiles::of(figures)?;
        Some(Self { low, median, high, all: figures.to_vec() })
    }
}

/// Stretches against the server and, in turns with them, against the floor; microseconds of CPU a unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pairs {
    /// What a unit is.
    pub unit: &'static str,
    pub server_us: Option<Spread>,
    pub floor_us: Option<Spread>,
    /// Of each pair.
    pub ratio: Option<Spread>,
    /// The server's less the floor's, of each pair.
    pub difference_us: Option<Spread>,
}

/// Pairs while they are taken.
#[derive(Clone, Debug, Default)]
pub struct PairsTaken {
    server_us: Vec<f64>,
    floor_us: Vec<f64>,
}

impl PairsTaken {
    /// A stretch against the server, and the one against the floor beside it, where they were measured.
    pub fn push(&mut self, server_us: Option<f64>, floor_us: Option<f64>) {
        if let (Some(server), Some(floor)) = (server_us, floor_us) {
            println!("server {server:.3} µs, floor {floor:.3} µs, ratio {:.3}", server / floor);
        }
        // A stretch without its partner would put all later pairs out of step.
        if floor_us.is_none() || server_us.is_some() {
            self.server_us.extend(server_us);
            self.floor_us.extend(floor_us);
        }
    }

    pub fn pairs(&self, unit: &'static str) -> Pairs {
        let both = || self.server_us.iter().zip(&self.floor_us);
        Pairs {
            unit,
            server_us: Spread::of(&self.server_us),
            floor_us: Spread::of(&self.floor_us),
            ratio: Spread::of(&both().map(|(server, floor)| server / floor).collect::<Vec<_>>()),
            difference_us: Spread::of(&both().map(|(server, floor)| server - floor).collect::<Vec<_>>()),
        }
    }
}

/// Latencies in microseconds, each from when its cause was due.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Quantile and microseconds, ever closer to 1: what a chart of percentiles needs.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    /// Points of the curve at most: from 0.5 on, each halves what is left to 1.
    const CURVE_POINTS_MAX: u32 = 24;

    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let mut curve = vec![(0.0, histogram.min())];
        for halvings in 1..=Self::CURVE_POINTS_MAX {
            let rest = 0.5_f64.powi(halvings as i32);
            curve.push((1.0 - rest, at(1.0 - rest)));
            if rest * (histogram.len() as f64) < 1.0 {
                break;
            }
        }
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max(),
            curve,
        }
    }
}

/// What was to come and what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub expected: u64,
    /// Came once, in order, byte by byte as sent.
    pub right: u64,
    /// Did not come.
    pub missing: u64,
    /// Came again without need.
    pub repeated: u64,
    /// Were passed over by a later one: lost, or out of order.
    pub skipped: u64,
    /// Nobody had sent them so, or to this client.
    pub foreign: u64,
    /// Came again marked as a redelivery, which QoS 1 may after a lost connection.
    pub redelivered: u64,
}

impl Checked {
    /// Whether everything came as it should.
    pub fn is_right(&self) -> bool {
        self.right == self.expected && self.missing + self.repeated + self.skipped + self.foreign == 0
    }

    /// What has been added since then.
    pub fn since(self, before: Self) -> Self {
        Self {
            expected: self.expected - before.expected,
            right: self.right - before.right,
            // What was missing then may have come by now.
            missing: self.missing.saturating_sub(before.missing),
            repeated: self.repeated - before.repeated,
            skipped: self.skipped - before.skipped,
            foreign: self.foreign - before.foreign,
            redelivered: self.redelivered - before.redelivered,
        }
    }

    /// The same of several.
    pub fn and(self, other: Self) -> Self {
        Self {
            expected: self.expected + other.expected,
            right: self.right + other.right,
            missing: self.missing + other.missing,
            repeated: self.repeated + other.repeated,
            skipped: self.skipped + other.skipped,
            foreign: self.foreign + other.foreign,
            redelivered: self.redelivered + other.redelivered,
        }
    }
}

/// How things stood at one moment of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Since the client started.
    pub seconds: f64,
    /// What was being done.
    pub stage: String,
    /// Clients that were connected and subscribed.
    pub ready: u64,
    /// The server's resident memory and CPU time so far, where its process is known.
    pub server_rss_bytes: Option<u64>,
    pub server_cpu_seconds: Option<f64>,
    /// The kernel's, for both ends.
    pub slab_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_without_its_partner_is_left_out_and_one_without_a_known_server_too() {
        let mut taken = PairsTaken::default();
        taken.push(Some(2.0), Some(1.0));
        taken.push(None, Some(1.0));
        taken.push(Some(6.0), Some(2.0));
        let pairs = taken.pairs("x");
        assert_eq!(pairs.ratio.expect("there are two").all, [2.0, 3.0]);
        assert_eq!(pairs.difference_us.expect("there are two").all, [1.0, 4.0]);
        let mut alone = PairsTaken::default();
        alone.push(Some(2.0), None);
        assert_eq!((alone.pairs("x").server_us.map(|spread| spread.median), alone.pairs("x").ratio), (Some(2.0), None));
    }

    #[test]
    fn a_curve_ends_where_no_value_is_left_beyond_it() {
        let mut histogram = Histogram::new_with_max(1_000, 3).expect("it is small");
        (1..=100).for_each(|value| histogram.saturating_record(value));
        let latency = Latency::of(&histogram);
        assert_eq!((latency.count, latency.p50_us, latency.p99_us, latency.max_us), (100, 50, 99, 100));
        assert_eq!(latency.curve.len(), 8);
        assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }

    #[test]
    fn any_one_fault_makes_a_delivery_wrong() {
        let right = Checked { expected: 2, right: 2, ..Checked::default() };
        assert!(right.is_right() && right.and(right).is_right());
        for wrong in [
            Checked { expected: 3, missing: 1, ..right },
            Checked { repeated: 1, ..right },
            Checked { skipped: 1, ..right },
            Checked { foreign: 1, ..right },
            Checked { expected: 3, ..right },
        ] {
            assert!(!wrong.is_right() && !right.and(wrong).is_right(), "{wrong:?}");
        }
        assert!(Checked { redelivered: 1, ..right }.is_right());
        assert_eq!(right.and(right).since(right), right);
    }
}
