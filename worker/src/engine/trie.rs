//! The plan of one pass: which rows exist at which stage of the forward pass (see
//! [`ablate_common::head::Stage`]; a layer, in most models). Subsets, as paths of (stage, heads), form a
//! trie; a node's rows come to life at its stage, from its parent's attention there, and die when no
//! subset and no later child needs them. Pure bookkeeping: no tensor.

use std::collections::HashMap;

/// One head's part in an intervention: ẑ = ξ z + (1 − ξ) b.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Head within its layer.
    pub head: u32,
    /// ξ: 0 removes, 1 leaves the head as it is.
    pub keep: f64,
}

/// What one subset does to the model: cuts per stage, stages ascending, heads ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intervention {
    /// (stage, cuts there). An empty list of cuts is allowed: a row that leaves the shared prefix at that
    /// stage without being changed.
    pub stages: Vec<(usize, Vec<Cut>)>,
}

/// A node of the trie.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node whose rows this one starts from; `None`: the base state.
    pub parent: Option<usize>,
    /// Stage in whose attention it starts.
    pub stage: usize,
    /// What changes there.
    pub cuts: Vec<Cut>,
    /// Subsets that end here, and so need the final stage's rows.
    pub ends: Vec<usize>,
    /// Last stage at which a child starts from these rows.
    pub last_child: Option<usize>,
}

impl Node {
    /// Whether its rows are needed after the attention of `stage`.
    #[must_use]
    pub fn lives_past(&self, stage: usize) -> bool {
        !self.ends.is_empty() || self.last_child.is_some_and(|s| s > stage)
    }
}

/// All nodes of a pass, parents before children, ordered by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Trie {
    /// Nodes by stage, then in the order of the subsets that made them.
    pub nodes: Vec<Node>,
    /// Subsets that change nothing: the base state itself.
    pub unchanged: Vec<usize>,
}

impl Trie {
    /// Builds the trie of `subsets`. Equal prefixes are one node.
    #[must_use]
    pub fn new(subsets: &[Intervention]) -> Self {
        type Key = (Option<usize>, usize, Vec<(u32, u64)>);
        let mut nodes: Vec<Node> = Vec::new();
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut unchanged = Vec::new();
        for (s, subset) in subsets.iter().enumerate() {
            let mut parent: Option<usize> = None;
            for (stage, cuts) in &subset.stages {
                let key = (parent, *stage, cuts.iter().map(|c| (c.head, c.keep.to_bits())).collect());
                let at = *known.entry(key).or_insert_with(|| {
                    nodes.push(Node {
                        parent,
                        stage: *stage,
                        cuts: cuts.clone(),
                        ends: Vec::new(),
                        last_child: None,
                    });
                    nodes.len() - 1
                });
                if let Some(p) = parent {
                    nodes[p].last_child = nodes[p].last_child.max(Some(*stage));
                }
                parent = Some(at);
            }
            match parent {
                Some(p) => nodes[p].ends.push(s),
                None => unchanged.push(s),
            }
        }
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|&i| nodes[i].stage);
        let mut place = vec![0; nodes.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = new;
        }
        let nodes = order
            .iter()
            .map(|&i| Node { parent: nodes[i].parent.map(|p| place[p]), ..nodes[i].clone() })
            .collect();
        Self { nodes, unchanged }
    }

    /// First stage at which a row leaves the base state; `None` where none does.
    #[must_use]
    pub fn first_stage(&self) -> Option<usize> {
        self.nodes.first().map(|n| n.stage)
    }

    /// Indices of the nodes that start at `stage`.
    #[must_use]
    pub fn starting_at(&self, stage: usize) -> std::ops::Range<usize> {
        self.nodes.partition_point(|n| n.stage < stage)..self.nodes.partition_point(|n| n.stage <= stage)
    }

    /// Stages that the pass computes, in rows: the measure of its work.
    #[must_use]
    pub fn stage_rows(&self, stages: usize) -> usize {
        self.nodes
            .iter()
            .map(|n| {
                let end = if n.ends.is_empty() { n.last_child.unwrap_or(n.stage) } else { stages };
                end - n.stage
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(heads: &[u32]) -> Vec<Cut> {
        heads.iter().map(|&head| Cut { head, keep: 0.0 }).collect()
    }

    #[test]
    fn pairs_that_share_their_first_head_share_its_prefix() {
        let subset = |stages: &[(usize, &[u32])]| Intervention {
            stages: stages.iter().map(|(l, h)| (*l, cut(h))).collect(),
        };
        let trie = Trie::new(&[
            subset(&[(0, &[1, 2])]),
            subset(&[(0, &[1]), (1, &[0])]),
            subset(&[(0, &[1]), (2, &[3])]),
            subset(&[]),
        ]);
        assert_eq!(trie.unchanged, [3]);
        assert_eq!(trie.nodes.len(), 4);
        assert_eq!(trie.starting_at(0), 0..2);
        assert_eq!(trie.starting_at(1), 2..3);
        let shared = trie.nodes.iter().position(|n| n.cuts == cut(&[1])).unwrap();
        assert!(trie.nodes[shared].ends.is_empty());
        assert_eq!(trie.nodes[shared].last_child, Some(2));
        assert!(trie.nodes[shared].lives_past(1) && !trie.nodes[shared].lives_past(2));
        assert_eq!(trie.nodes[2].parent, Some(shared));
        // 3 stages: {1,2} runs 3, {1} runs 2, its children 2 and 1.
        assert_eq!(trie.stage_rows(3), 8);
    }
}
