//! What the matches of one transaction amount to: a pure function.

use events::{Outcome, RiskLevel, Severity};

use super::pack::{Action, Thresholds};

const MAX_SCORE: u32 = 100;

/// A live rule that matched, with what of it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Match {
    /// Which of those that fired on the transaction it is.
    pub(crate) at: usize,
    pub(crate) points: u32,
    pub(crate) severity: Severity,
    pub(crate) action: Action,
}

/// The verdict on one transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) risk_score: u8,
    pub(crate) risk_level: RiskLevel,
    /// The highest severity, when it is one to alert on.
    pub(crate) alert: Option<Severity>,
}

/// The score is the sum of points, at most 100; the outcome is the most severe that a matched rule's
/// action or the score's threshold asks for. A rule that allows goes before all of that, and a hard block
/// before it. What is allowed raises no alert. Matches are put in the order in which they are told: those of lists
/// first, then most points first.
pub(crate) fn decide(matches: &mut [Match], thresholds: &Thresholds) -> Verdict {
    let points: u32 = matches.iter().map(|m| m.points).sum();
    let risk_score = u8::try_from(points.min(MAX_SCORE)).expect("at most 100");
    let reached = |threshold: Option<u8>| threshold.is_some_and(|t| risk_score >= t);
    let by_score = if reached(thresholds.decline) {
        Outcome::Decline
    } else if reached(thresholds.challenge) {
        Outcome::Challenge
    } else if reached(thresholds.review) {
        Outcome::Review
    } else {
        Outcome::Approve
    };
    let allowed =
        matches.iter().max_by_key(|m| m.action.precedence()).is_some_and(|m| m.action == Action::Allow);
    let outcome = if allowed {
        Outcome::Approve
    } else {
        matches.iter().map(|m| m.action.outcome()).fold(by_score, Outcome::max)
    };
    let alert = matches.iter().map(|m| m.severity).max().filter(|&s| s >= Severity::Medium && !allowed);
    // Stable: rules of equal points stay in the pack's order. What decided comes first whatever its points.
    matches.sort_by_key(|m| std::cmp::Reverse((m.action.precedence(), m.points)));
    Verdict { outcome, risk_score, risk_level: RiskLevel::of_score(risk_score), alert }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { review: Some(65), challenge: None, decline: Some(75) };

    const fn matched(points: u32, severity: Severity, action: Action) -> Match {
        Match { at: 0, points, severity, action }
    }

    #[test]
    fn nothing_matched_is_approved_without_an_alert() {
        let verdict = decide(&mut [], &THRESHOLDS);
        assert_eq!((verdict.outcome, verdict.risk_score, verdict.alert), (Outcome::Approve, 0, None));
    }

    #[test]
    fn points_add_up_to_the_thresholds_and_stop_at_one_hundred() {
        let of = |points: &[u32]| {
            let matches = points.iter().map(|&p| matched(p, Severity::Low, Action::Score));
            decide(&mut matches.collect::<Vec<_>>(), &THRESHOLDS)
        };
        assert_eq!(of(&[40, 24]).outcome, Outcome::Approve);
        assert_eq!((of(&[40, 25]).outcome, of(&[40, 25]).risk_level), (Outcome::Review, RiskLevel::Elevated));
        assert_eq!((of(&[40, 35]).outcome, of(&[40, 35]).risk_level), (Outcome::Decline, RiskLevel::Highest));
        assert_eq!(of(&[90, 90]).risk_score, 100);
    }

    #[test]
    fn the_most_severe_action_wins_over_a_low_score() {
        let mut matches =
            [matched(1, Severity::Low, Action::Challenge), matched(2, Severity::Medium, Action::Review)];
        let verdict = decide(&mut matches, &THRESHOLDS);
        assert_eq!((verdict.outcome, verdict.alert), (Outcome::Challenge, Some(Severity::Medium)));
        assert_eq!(matches[0].points, 2, "most points first");
    }

    #[test]
    fn an_allow_goes_before_everything_but_a_hard_block() {
        use Action::{Allow, Block, Decline, HardBlock, Score};
        let of = |actions: &[(Action, u32)]| {
            let matches = actions.iter().map(|&(action, points)| matched(points, Severity::High, action));
            let mut matches: Vec<Match> = matches.collect();
            let verdict = decide(&mut matches, &THRESHOLDS);
            (verdict.outcome, verdict.alert.is_some(), matches[0].points)
        };
        assert_eq!(of(&[(Block, 1)]), (Outcome::Decline, true, 1));
        assert_eq!(of(&[(HardBlock, 1)]), (Outcome::Decline, true, 1));
        assert_eq!(of(&[(Score, 90), (Decline, 80), (Block, 70), (Allow, 0)]), (Outcome::Approve, false, 0));
        assert_eq!(of(&[(Allow, 0), (Score, 90), (HardBlock, 2), (Block, 3)]), (Outcome::Decline, true, 2));
        assert_eq!(of(&[(Score, 90), (Block, 1)]), (Outcome::Decline, true, 1), "the list is named first");
    }

    #[test]
    fn low_severity_raises_no_alert() {
        assert_eq!(decide(&mut [matched(90, Severity::Low, Action::Decline)], &THRESHOLDS).alert, None);
    }
}
