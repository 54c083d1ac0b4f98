//! Which known key a mistyped one was meant to be.

/// The known key that `key` was most likely meant to be: one or two letters off, the same name in another
/// section, or one that begins alike.
pub(super) fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let leaf = key.rsplit('.').next().unwrap_or_default();
    let budget = (leaf.len() / 3).clamp(1, 3);
    let similar = known.iter().map(|known| (distance(key, known), known)).min();
    similar
        .filter(|(edits, _)| *edits <= budget)
        .map(|(_, known)| known)
        .or_else(|| known.iter().find(|known| known.rsplit('.').next() == Some(leaf)))
        .or_else(|| known.iter().find(|known| known.starts_with(key)))
        .map(String::as_str)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("listn", "listen"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_key_in_the_wrong_section_is_found_by_its_name_and_nonsense_is_not() {
        let known = ["server.listen".to_owned(), "warehouse.flush_interval_ms".to_owned()];
        assert_eq!(nearest("alerter.flush_interval_ms", &known), Some("warehouse.flush_interval_ms"));
        assert_eq!(nearest("server.listne", &known), Some("server.listen"));
        assert_eq!(nearest("warehouse.flush", &known), Some("warehouse.flush_interval_ms"));
        assert_eq!(nearest("zzz", &known), None);
        assert_eq!(nearest("server.token", &known), None);
    }
}
