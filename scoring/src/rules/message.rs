//! The sentence that says why a rule matched, with figures to fill in.

use std::fmt::Write as _;

/// A message that was taken apart at its placeholders once, since a match has no time to look for them.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Observed,
    Limit,
}

impl Message {
    pub(super) fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((at, placeholder, part)) = next_placeholder(rest) {
            parts.push(Part::Text(rest[..at].to_owned()));
            parts.push(part);
            rest = &rest[at + placeholder.len()..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Self(parts)
    }

    /// The text with its figures.
    pub(super) fn fill(&self, observed: f64, limit: f64) -> String {
        // Figures rarely have more characters.
        const FIGURE: usize = 12;
        let length = |part: &Part| if let Part::Text(text) = part { text.len() } else { FIGURE };
        let mut filled = String::with_capacity(self.0.iter().map(length).sum());
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Observed => figure(observed, &mut filled),
                Part::Limit => figure(limit, &mut filled),
            }
        }
        filled
    }
}

fn next_placeholder(text: &str) -> Option<(usize, &'static str, Part)> {
    let placeholders = [("{observed}", Part::Observed), ("{limit}", Part::Limit)];
    let found = placeholders.into_iter().filter_map(|(name, part)| Some((text.find(name)?, name, part)));
    found.min_by_key(|(at, ..)| *at)
}

fn figure(figure: f64, out: &mut String) {
    // Most figures are counts, and digits of integers are found much sooner.
    if let Some(whole) = events::whole(figure) {
        out.push_str(itoa::Buffer::new().format(whole));
        return;
    }
    let digits = if figure.fract() == 0.0 { 0 } else { 2 };
    write!(out, "{figure:.digits$}").expect("a text takes anything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_figures_wherever_they_are_and_nothing_else_does() {
        let filled = |text: &str| Message::new(text).fill(3.756, 1e20);
        assert_eq!(filled("{observed} times, above {limit}"), "3.76 times, above 100000000000000000000");
        assert_eq!(filled("{limit}{observed}{limit"), "1000000000000000000003.76{limit");
        assert_eq!(filled("{{observed}} of {observe}"), "{3.76} of {observe}");
        assert_eq!(filled(""), "");
        assert_eq!(Message::new("{observed} and {limit}").fill(-4.0, 0.0), "-4 and 0");
    }
}
