//! What somebody may have meant.

/// How far `candidate` is from `wanted`: the least number of letters to insert, delete, change or swap. None if it is
/// too far to be a slip.
pub(crate) fn distance(wanted: &str, candidate: &str) -> Option<usize> {
    let distance = strsim::osa_distance(wanted, candidate);
    let shorter = wanted.len().min(candidate.len());
    let contained = shorter >= 3 && (candidate.contains(wanted) || wanted.contains(candidate));
    (contained || distance <= 1.max(wanted.len() / 3)).then_some(distance)
}

/// The candidates that are near, nearest first.
pub(crate) fn near<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(wanted, candidate)?, candidate)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        assert_eq!(near("apii", ["web", "api", "ap", "apis"]), ["api", "apis"]);
        assert_eq!(near("wbe", ["web", "db"]), ["web"]);
        assert_eq!(near("web", ["my-web-service", "db"]), ["my-web-service"]);
        assert_eq!(near("frontend", ["backend"]), Vec::<&str>::new());
    }
}
