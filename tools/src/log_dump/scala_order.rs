//! The order in which Scala's mutable hash maps and sets are walked, in which Kafka's tool prints members and
//! partitions.
//!
//! A table of a power of two, 16 at first, doubled when three quarters are taken; a node's place is its hash with the
//! upper half mixed in, and nodes of one place are sorted by that. Source: `scala.collection.mutable.HashMap` and
//! `HashSet` of Scala 2.13, the build of 2.7.2 that Kafka recommends.

const CAPACITY_MIN: usize = 16;

/// The positions of elements that were added one by one, in the order of a walk. The elements differ from each other.
pub(super) fn iteration_order(hashes: &[i32]) -> Vec<usize> {
    let mut capacity = CAPACITY_MIN;
    for size in 0..hashes.len() {
        if size + 1 >= threshold(capacity) {
            capacity *= 2;
        }
    }
    in_table(hashes, capacity)
}

/// The same for elements that were added set by set, of these sizes. Each makes room for itself first; those of more
/// than four elements look no further.
pub(super) fn iteration_order_of_sets(hashes: &[i32], sets: &[usize]) -> Vec<usize> {
    let (mut capacity, mut size) = (CAPACITY_MIN, 0);
    for set in sets {
        capacity = capacity.max(((set + 1) * 4 / 3).next_power_of_two());
        for before in size..size + set {
            if *set <= 4 && before + 1 >= threshold(capacity) {
                capacity *= 2;
            }
        }
        size += set;
    }
    in_table(hashes, capacity)
}

fn threshold(capacity: usize) -> usize {
    capacity * 3 / 4
}

fn in_table(hashes: &[i32], capacity: usize) -> Vec<usize> {
    let improved = |index: usize| hashes[index] ^ ((hashes[index] as u32) >> 16) as i32;
    let mut order: Vec<usize> = (0..hashes.len()).collect();
    // A stable sort keeps equal hashes in the order of their arrival.
    order.sort_by_key(|index| {
        (
            improved(*index) as u32 as usize & (capacity - 1),
            improved(*index),
        )
    });
    order
}

#[cfg(test)]
mod tests {
    use milena_server::group::records::java_hash;

    use super::*;

    #[test]
    fn elements_are_walked_by_the_place_that_their_hash_has_in_a_table_that_grows() {
        // As Scala 2.13 prints `mutable.HashMap` of these keys.
        let order = |keys: &[&str]| {
            let hashes: Vec<_> = keys.iter().map(|key| java_hash(key)).collect();
            let walked: Vec<_> = iteration_order(&hashes)
                .into_iter()
                .map(|index| keys[index])
                .collect();
            walked.concat()
        };
        assert_eq!(java_hash("consumer-1"), -166_239_206);
        assert_eq!(order(&["d", "c", "b", "a"]), "abcd");
        // 16 places: 'a' (97) to 'p' (112) are 1 to 15 and 0.
        assert_eq!(order(&["a", "p", "b"]), "pab");
        // The twelfth element doubles the table: 'p' is behind 'o' then.
        assert_eq!(
            order(&["p", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]),
            "pabcdefghij"
        );
        assert_eq!(
            order(&["p", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]),
            "abcdefghijkp"
        );
    }

    #[test]
    fn a_large_set_makes_room_once_and_small_ones_as_they_grow() {
        // 0 and 16 share a place of 16; in 32 places they do not.
        let hashes: Vec<i32> = (0..30).map(|number| number / 2 + number % 2 * 16).collect();
        let places = |sets: &[usize]| {
            let order = iteration_order_of_sets(&hashes[..sets.iter().sum()], sets);
            if order[1] == 1 { 16 } else { 32 }
        };
        assert_eq!(places(&[11]), 16);
        assert_eq!(places(&[12]), 32);
        assert_eq!(places(&[11, 11]), 16);
        assert_eq!(places(&[4, 4, 3]), 16);
        assert_eq!(places(&[4, 4, 4]), 32);
    }
}
