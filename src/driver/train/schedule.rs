//! Learning rates over the steps of a run.

use serde::Deserialize;

/// How the learning rate falls after its warm-up; Hugging Face's `get_scheduler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Constant,
    /// To zero, in a straight line.
    #[default]
    Linear,
    /// To zero, along half a cosine.
    Cosine,
}

impl Schedule {
    /// The rate of a step as a share of the highest; steps count from 1.
    pub fn share(self, step: u64, warmup: u64, steps: u64) -> f64 {
        let done = (step - 1) as f64;
        let warm = warmup as f64;
        if done < warm {
            return (done + 1.0) / (warm + 1.0);
        }
        let left = (steps as f64 - warm).max(1.0);
        let progress = ((done - warm) / left).clamp(0.0, 1.0);
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_their_highest_and_never_reach_zero_before_the_end() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            let shares: Vec<f64> = (1..=100)
                .map(|step| schedule.share(step, 10, 100))
                .collect();
            assert!(shares[..10].windows(2).all(|pair| pair[0] < pair[1]));
            assert_eq!(shares[10], 1.0);
            assert!(shares[10..].windows(2).all(|pair| pair[0] >= pair[1]));
            assert!(shares.iter().all(|share| *share > 0.0 && *share <= 1.0));
        }
        assert_eq!(Schedule::Linear.share(56, 10, 100), 0.5);
        assert!((Schedule::Cosine.share(56, 10, 100) - 0.5).abs() < 1e-12);
        // A run of one step is warm at once.
        assert_eq!(Schedule::Cosine.share(1, 0, 1), 1.0);
    }
}
