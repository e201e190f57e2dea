//! How fast a run is and when it ends.

use crate::driver::show_bytes;

/// What has been measured of the steps that this process has done.
pub(super) struct Speed {
    /// That they took; more than 0.
    pub seconds: f64,
    pub steps: u64,
    /// Steps until the end.
    pub left: u64,
    /// Tokens in their batches; 0 where examples have none.
    pub tokens: usize,
    /// The most that the process has held, where the system tells.
    pub memory: Option<u64>,
}

impl Speed {
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.seconds
    }

    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }

    pub fn eta_seconds(&self) -> f64 {
        self.seconds / self.steps.max(1) as f64 * self.left as f64
    }

    /// For a line on a terminal.
    pub fn text(&self) -> String {
        let steps = match self.steps_per_second() {
            many if many >= 10.0 => format!("{many:.0} steps/s"),
            few => format!("{few:.2} steps/s"),
        };
        let tokens = match self.tokens {
            0 => String::new(),
            _ => format!("  {:.0} tokens/s", self.tokens_per_second()),
        };
        let memory = self
            .memory
            .map_or(String::new(), |bytes| format!("  {}", show_bytes(bytes)));
        format!(
            "{steps}{tokens}{memory}  {} left",
            duration(self.eta_seconds())
        )
    }
}

/// Seconds as people say them, to what matters.
fn duration(seconds: f64) -> String {
    let all = seconds.round() as u64;
    match (all / 3600, all / 60 % 60, all % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_was_done() {
        let speed = Speed {
            seconds: 4.0,
            steps: 8,
            left: 200,
            tokens: 6000,
            memory: Some(300 << 20),
        };
        assert_eq!(speed.steps_per_second(), 2.0);
        assert_eq!(speed.eta_seconds(), 100.0);
        let text = speed.text();
        assert_eq!(
            text,
            "2.00 steps/s  1500 tokens/s  300.0 MiB  1 min 40 s left"
        );
        let pictures = Speed {
            tokens: 0,
            memory: None,
            steps: 80,
            left: 0,
            ..speed
        };
        assert_eq!(pictures.text(), "20 steps/s  0 s left");
        assert_eq!(duration(7260.0), "2 h 1 min");
    }
}
