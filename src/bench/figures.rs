//! Counts and times -> rates, ratios and percentiles. The only place of the benchmark that divides.
#![expect(clippy::float_arithmetic, reason = "figures for people; no money is computed here")]

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Error;

/// The longest latency that is told apart from a longer one.
const LATENCY_MAX_US: u64 = 120_000_000;

/// `count` per second; an error where nothing was measured, never a zero.
///
/// # Errors
/// Nothing happened, or in no time.
pub fn per_second(what: &str, count: usize, elapsed: Duration) -> Result<f64, Error> {
    if count == 0 || elapsed.is_zero() {
        let reason =
            format!("{what}: {count} in {} ms: too little; use --commands", elapsed.as_millis());
        return Err(Error::Wrong(reason));
    }
    Ok(float(count) / elapsed.as_secs_f64())
}

/// A figure over its raw limit.
#[must_use]
pub fn ratio(figure: f64, raw: f64) -> f64 {
    round(figure / raw, 1_000.0)
}

/// The mean of several runs: with two of them, also their median.
#[must_use]
pub fn mean(runs: &[f64]) -> f64 {
    runs.iter().sum::<f64>() / float(runs.len().max(1))
}

/// Bytes in millions.
#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    round(float(usize::try_from(bytes).unwrap_or(usize::MAX)) / 1e6, 10.0)
}

/// A rate without what nobody can measure.
#[must_use]
pub fn whole(rate: f64) -> f64 {
    rate.round()
}

/// Seconds with milliseconds.
#[must_use]
pub fn seconds(elapsed: Duration) -> f64 {
    round(elapsed.as_secs_f64(), 1_000.0)
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

/// How much a growing value grew between two moments, in units of `unit`: samples are moments and
/// values, and in between it grows evenly.
#[must_use]
pub fn grown(samples: &[(i64, u64)], start: i64, end: i64, unit: f64) -> f64 {
    (value_at(samples, end) - value_at(samples, start)) / unit
}

#[expect(clippy::cast_precision_loss, reason = "moments and ticks within a run")]
fn value_at(samples: &[(i64, u64)], at: i64) -> f64 {
    let after = samples.partition_point(|(moment, _)| *moment < at);
    let Some((end, high)) = samples.get(after).or(samples.last()) else {
        return 0.0;
    };
    match after.checked_sub(1).and_then(|before| samples.get(before)) {
        Some((start, low)) if start < end => {
            let part = (at - start) as f64 / (end - start) as f64;
            *low as f64 + (*high - *low) as f64 * part.min(1.0)
        }
        Some(_) | None => *high as f64,
    }
}

/// `count` per unit of something that is measured in parts of it.
#[must_use]
pub fn per(count: usize, units: f64) -> f64 {
    float(count) / units
}

/// Latencies in microseconds, told in milliseconds.
pub struct Latencies(Histogram<u64>);

/// What came of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Half of all took at most this long.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
    /// 999 of 1,000 took at most this long.
    pub p999_ms: f64,
}

impl Latencies {
    /// Starts empty.
    ///
    /// # Errors
    /// Never with these bounds.
    pub fn new() -> Result<Self, Error> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        histogram.map(Self).map_err(|error| Error::Wrong(error.to_string()))
    }

    /// Adds one; a clock that went back a little counts as the shortest.
    pub fn add(&mut self, micros: i64) {
        self.0.saturating_record(micros.max(1).unsigned_abs());
    }

    /// Sums up.
    ///
    /// # Errors
    /// There is nothing to sum up.
    pub fn percentiles(&self, what: &str) -> Result<Percentiles, Error> {
        if self.0.is_empty() {
            return Err(Error::Wrong(format!("{what}: nothing was measured; use --seconds")));
        }
        let at = |quantile| round(self.0.value_at_quantile(quantile) as f64 / 1_000.0, 100.0);
        Ok(Percentiles { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) })
    }
}
