//! Hierarchical clustering by average linkage: which units stand in for which, as an order and a tree.

/// A tree over items 0..n; what joins is named n + the index of its join.
#[derive(Debug)]
pub struct Tree {
    /// Joins, those below before those above: (left, right, mean similarity across).
    pub joins: Vec<(usize, usize, f64)>,
    /// The leaves from left to right.
    pub order: Vec<usize>,
}

/// Clusters `n` items by a symmetric similarity, row-major, by nearest-neighbour chains (average linkage is reducible, so the
/// tree is that of joining the most similar two again and again). Of two branches the one with the earliest item is on the
/// left. NaN counts as 0.
pub fn average(n: usize, similarity: &[f64]) -> Tree {
    let mut s: Vec<f64> = similarity.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
    let mut joins: Vec<(usize, usize, f64)> = Vec::new();
    // A slot holds a cluster: its name in the tree, its size and its earliest item.
    let mut slot: Vec<Option<(usize, usize, usize)>> = (0..n).map(|k| Some((k, 1, k))).collect();
    let mut chain: Vec<usize> = Vec::new();
    while joins.len() + 1 < n {
        if chain.is_empty() {
            chain.extend(slot.iter().position(Option::is_some));
        }
        let (Some(&top), before) = (chain.last(), chain.len().checked_sub(2).map(|k| chain[k])) else {
            break;
        };
        // The previous one wins ties, so that the chain ends.
        let mut best = before.map(|b| (b, s[top * n + b]));
        for other in (0..n).filter(|&o| o != top && slot[o].is_some()) {
            let v = s[top * n + other];
            if best.is_none_or(|b| v > b.1) {
                best = Some((other, v));
            }
        }
        let Some((near, value)) = best else { break };
        if before != Some(near) {
            chain.push(near);
            continue;
        }
        chain.truncate(chain.len() - 2);
        let (Some(a), Some(b)) = (slot[top], slot[near]) else { break };
        let (left, right) = if a.2 < b.2 { (a, b) } else { (b, a) };
        joins.push((left.0, right.0, value));
        for other in (0..n).filter(|&o| o != top && o != near && slot[o].is_some()) {
            let mean =
                (a.1 as f64 * s[top * n + other] + b.1 as f64 * s[near * n + other]) / (a.1 + b.1) as f64;
            s[top * n + other] = mean;
            s[other * n + top] = mean;
        }
        slot[near] = None;
        slot[top] = Some((n + joins.len() - 1, a.1 + b.1, left.2));
    }
    let mut order = Vec::with_capacity(n);
    let mut open: Vec<usize> = match joins.len() {
        0 => (0..n).rev().collect(),
        last => vec![n + last - 1],
    };
    while let Some(node) = open.pop() {
        match node.checked_sub(n) {
            Some(join) => open.extend([joins[join].1, joins[join].0]),
            None => order.push(node),
        }
    }
    Tree { joins, order }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_are_neighbours() {
        // 0 and 3 belong together, 1 and 4 too, less so; 2 is alone.
        let n = 5;
        let mut s = vec![0.0; n * n];
        for (a, b, v) in [(0, 3, 0.9), (1, 4, 0.6), (0, 1, 0.1)] {
            s[a * n + b] = v;
            s[b * n + a] = v;
        }
        s[2 * n + 1] = f64::NAN;
        let tree = average(n, &s);
        assert_eq!(tree.order, [0, 3, 1, 4, 2]);
        assert_eq!(tree.joins[0], (0, 3, 0.9));
        assert_eq!(tree.joins[1], (1, 4, 0.6));
        // (0.1 + 0 + 0 + 0) / 4 between the two pairs.
        assert!((tree.joins[2].2 - 0.025).abs() < 1e-12, "{:?}", tree.joins);
        assert_eq!(average(1, &[0.0]).order, [0]);
        assert!(average(0, &[]).order.is_empty());
    }

    #[test]
    fn average_linkage_equals_the_plain_algorithm() {
        let n = 12;
        let mut s = vec![0.0; n * n];
        let mut x = 7u64;
        for a in 0..n {
            for b in 0..a {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let v = (x >> 40) as f64 / (1u64 << 24) as f64;
                s[a * n + b] = v;
                s[b * n + a] = v;
            }
        }
        let mut plain: Vec<Vec<usize>> = (0..n).map(|k| vec![k]).collect();
        let mut heights = Vec::new();
        while plain.len() > 1 {
            let mut best = (0, 1, f64::NEG_INFINITY);
            for i in 0..plain.len() {
                for j in i + 1..plain.len() {
                    let pairs = plain[i].iter().flat_map(|a| plain[j].iter().map(move |b| (a, b)));
                    let mean = pairs.map(|(a, b)| s[a * n + b]).sum::<f64>()
                        / (plain[i].len() * plain[j].len()) as f64;
                    if mean > best.2 {
                        best = (i, j, mean);
                    }
                }
            }
            let joined = plain.remove(best.1);
            plain[best.0].extend(joined);
            heights.push(best.2);
        }
        let mut found: Vec<f64> = average(n, &s).joins.iter().map(|j| j.2).collect();
        found.sort_by(|a, b| b.total_cmp(a));
        heights.sort_by(|a, b| b.total_cmp(a));
        assert!(found.iter().zip(&heights).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {heights:?}");
    }
}
