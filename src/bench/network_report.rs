//! The report of `bench network`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{args::VideoFormat, network::Case, report::Report};

/// What one call over a network was like for its viewer.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct RunFigures {
    /// Milliseconds from the request to join to the first frame; `None` without one.
    pub(super) first_frame_ms: Option<u64>,
    /// Decoded frames per second from the first frame on.
    pub(super) fps: f64,
    /// Milliseconds for which the video was frozen.
    pub(super) frozen_ms: u64,
    /// The longest freeze in milliseconds, of all calls in a summary.
    pub(super) longest_freeze_ms: u64,
    /// The share of audio that was concealed, in percent, from the sixth second on.
    pub(super) concealed: f64,
    /// The same from the start.
    pub(super) concealed_from_start: f64,
    /// What the sender's connection sent in the second half, in kbit/s, with all headers of RTP.
    pub(super) sent_kbps: f64,
}

/// The calls over one network.
#[derive(Debug)]
pub(super) struct CaseReport {
    /// The impairment, as for `--impair`.
    pub(super) network: String,
    /// What is promised; `None` for a network of the user.
    pub(super) goal: Option<Case>,
    pub(super) runs: Vec<RunFigures>,
}

/// The result of `bench network`.
#[derive(Debug)]
pub(super) struct NetworkReport {
    pub(super) format: VideoFormat,
    /// The length of each call, in seconds.
    pub(super) seconds: u64,
    pub(super) cases: Vec<CaseReport>,
}

impl CaseReport {
    /// The medians of all runs, and the longest freeze of any.
    fn median(&self) -> RunFigures {
        let of = |value: fn(&RunFigures) -> f64| {
            let mut values: Vec<f64> = self.runs.iter().map(value).collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        // A call without a frame is worse than any with one.
        let first = of(|run| run.first_frame_ms.map_or(f64::INFINITY, |ms| ms as f64));
        RunFigures {
            first_frame_ms: first.is_finite().then_some(first as u64),
            fps: of(|run| run.fps),
            frozen_ms: of(|run| run.frozen_ms as f64) as u64,
            longest_freeze_ms: self.runs.iter().map(|one| one.longest_freeze_ms).max().unwrap_or(0),
            concealed: of(|run| run.concealed),
            concealed_from_start: of(|run| run.concealed_from_start),
            sent_kbps: of(|run| run.sent_kbps),
        }
    }

    /// Whether the medians reach the goal, as they are printed; `None` without one.
    fn reaches_goal(&self) -> Option<bool> {
        let (goal, median) = (self.goal?, self.median());
        let is_good =
            tenths(median.fps) >= goal.min_fps && tenths(median.concealed) <= goal.max_concealed;
        let is_moving = goal.max_freeze_ms.is_none_or(|most| median.longest_freeze_ms <= most);
        Some(is_good && is_moving && median.sent_kbps.round() >= goal.min_sent_kbps)
    }

    /// One line of the table.
    fn as_line(&self) -> String {
        let median = self.median();
        let first =
            median.first_frame_ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms"));
        let mut line = format!(
            "{:<38} {first:>9} {:>5.1} {:>8.1} {:>9.1} {:>10.1} {:>7.1} {:>6.0}",
            self.network,
            median.fps,
            median.frozen_ms as f64 / 1000.0,
            median.longest_freeze_ms as f64 / 1000.0,
            median.concealed,
            median.concealed_from_start,
            median.sent_kbps,
        );
        if let Some((goal, reached)) = self.goal.zip(self.reaches_goal()) {
            let mark = if reached { "reached" } else { "missed" };
            let _ = write!(line, "  {:.0} fps, {} %", goal.min_fps, goal.max_concealed);
            if let Some(most) = goal.max_freeze_ms {
                let _ = write!(line, ", longest {:.1} s", most as f64 / 1000.0);
            }
            if goal.min_sent_kbps > 0.0 {
                let _ = write!(line, ", {} kbit/s", goal.min_sent_kbps);
            }
            let _ = write!(line, ": {mark}");
        }
        line
    }

    fn as_json(&self) -> Value {
        let figures = |run: &RunFigures| {
            json!({
                "first_frame_ms": run.first_frame_ms,
                "fps": tenths(run.fps),
                "frozen_ms": run.frozen_ms,
                "longest_freeze_ms": run.longest_freeze_ms,
                "concealed_percent": hundredths(run.concealed),
                "concealed_percent_from_start": hundredths(run.concealed_from_start),
                "sent_kbps": run.sent_kbps.round(),
            })
        };
        json!({
            "network": self.network,
            "goal": self.goal.map(|goal| {
                json!({
                    "min_fps": goal.min_fps,
                    "max_concealed_percent": goal.max_concealed,
                    "min_sent_kbps": goal.min_sent_kbps,
                    "max_freeze_ms": goal.max_freeze_ms,
                })
            }),
            "reached": self.reaches_goal(),
            "median": figures(&self.median()),
            "runs": self.runs.iter().map(figures).collect::<Vec<_>>(),
        })
    }
}

impl Report for NetworkReport {
    fn as_json(&self) -> Value {
        json!({
            "bench": "network",
            "size": self.format.size.to_string(),
            "fps": self.format.fps,
            "seconds": self.seconds,
            "cases": self.cases.iter().map(CaseReport::as_json).collect::<Vec<_>>(),
        })
    }

    fn as_text(&self) -> String {
        let runs = self.cases.iter().map(|case| case.runs.len()).max().unwrap_or_default();
        let VideoFormat { size, fps } = self.format;
        let mut text = format!(
            "{size}@{fps}, one viewer, calls of {} s, medians of {runs}\n{:<38} {:>9} {:>5} {:>8} \
             {:>9} {:>10} {:>7} {:>6}  goal\n",
            self.seconds,
            "network (each way)",
            "first",
            "fps",
            "frozen s",
            "longest s",
            "concealed%",
            "(start)",
            "kbit/s",
        );
        for case in &self.cases {
            let _ = writeln!(text, "{}", case.as_line());
        }
        text.pop();
        text
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::{super::network::CASES, *};

    fn run(first_frame_ms: Option<u64>, fps: f64, concealed: f64) -> RunFigures {
        RunFigures { first_frame_ms, fps, concealed, ..RunFigures::default() }
    }

    #[test]
    fn a_case_reaches_its_goal_by_the_medians_of_its_runs() {
        let goal = Case {
            impairment: "loss=0.05",
            min_fps: 29.0,
            max_concealed: 0.2,
            min_sent_kbps: 0.0,
            max_freeze_ms: None,
        };
        let runs = vec![run(Some(200), 29.6, 0.1), run(None, 0.0, 40.0), run(Some(300), 29.1, 0.2)];
        let mut case = CaseReport { network: "loss=0.05".to_owned(), goal: Some(goal), runs };
        let median = case.median();
        assert_eq!((median.first_frame_ms, median.fps, median.concealed), (Some(300), 29.1, 0.2));
        assert!(case.as_line().ends_with("29 fps, 0.2 %: reached"), "{}", case.as_line());
        case.runs[0] = run(None, 0.0, 40.0);
        assert_eq!((case.median().first_frame_ms, case.reaches_goal()), (None, Some(false)));
        assert!(case.as_line().contains(" none "), "{}", case.as_line());
        case.runs = vec![RunFigures { sent_kbps: 630.0, ..run(Some(200), 30.0, 0.0) }];
        assert_eq!(case.reaches_goal(), Some(true));
        case.goal = Some(Case { min_sent_kbps: 800.0, ..goal });
        assert!(case.as_line().ends_with("0.2 %, 800 kbit/s: missed"), "{}", case.as_line());
        case.goal = None;
        assert_eq!(case.reaches_goal(), None);
    }

    #[test]
    fn one_long_freeze_in_any_of_the_calls_misses_the_goal() {
        let goal = Case { max_freeze_ms: Some(1000), ..CASES[0] };
        let calm = RunFigures { longest_freeze_ms: 300, ..run(Some(200), 30.0, 0.0) };
        let runs = vec![calm, RunFigures { longest_freeze_ms: 1001, ..calm }, calm];
        let mut case = CaseReport { network: String::new(), goal: Some(goal), runs };
        assert!(case.as_line().ends_with("longest 1.0 s: missed"), "{}", case.as_line());
        case.runs[1].longest_freeze_ms = 1000;
        assert_eq!(case.reaches_goal(), Some(true));
    }
}
