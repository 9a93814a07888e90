//! Which known names a mistyped one may have meant.

/// At most so many are told.
const NAMES_MAX: usize = 3;
/// Similarity from which a name is worth telling, of 1 for equal ones.
const SIMILARITY_MIN: f64 = 0.8;

/// The known names that are most similar, the nearest first.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let lower = name.to_lowercase();
    let rated = known.map(|known| (strsim::jaro_winkler(&lower, &known.to_lowercase()), known));
    let mut similar: Vec<(f64, &str)> = rated.filter(|(rate, _)| *rate >= SIMILARITY_MIN).collect();
    similar.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
    similar.truncate(NAMES_MAX);
    similar.into_iter().map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_through_and_a_stranger_is_not_matched() {
        let known = || ["orders", "Orders-v2", "payments", "__consumer_offsets"].into_iter();
        assert_eq!(nearest("oders", known())[0], "orders");
        assert_eq!(nearest("ORDERS", known()), ["orders", "Orders-v2"]);
        assert!(nearest("xyz", known()).is_empty());
    }
}
