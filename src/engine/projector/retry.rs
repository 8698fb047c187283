//! How long to wait before another try: attempts -> microseconds.

/// Doubling waits with jitter, bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The first wait, in microseconds.
    pub first_us: i64,
    /// The longest wait, in microseconds.
    pub longest_us: i64,
    /// Drawn by the driver, so that partitions and processes do not try all at once.
    pub seed: u64,
}

impl Retry {
    /// The wait after that many failures: doubled each time, then 50 to 100 % of it.
    #[must_use]
    pub fn wait_us(&self, attempts: u32) -> i64 {
        let doubled = self.first_us.saturating_mul(1 << attempts.min(20));
        let half = doubled.min(self.longest_us) / 2;
        let random = splitmix(self.seed.wrapping_add(u64::from(attempts))) >> 1;
        let jitter = random.cast_signed().checked_rem(half + 1).unwrap_or(0);
        half + jitter
    }
}

/// Spreads a number over 64 bits (the splitmix64 generator).
const fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_with_jitter_of_half() {
        let longest = [1_000_000, 2_000_000, 4_000_000, 8_000_000, 10_000_000];
        for seed in 0..50 {
            let retry = Retry { first_us: 1_000_000, longest_us: 10_000_000, seed };
            for (attempts, most) in (0..).zip(longest) {
                let wait = retry.wait_us(attempts);
                assert!((most / 2..=most).contains(&wait), "{attempts}: {wait}");
            }
            assert!(retry.wait_us(u32::MAX) <= 10_000_000);
        }
    }
}
