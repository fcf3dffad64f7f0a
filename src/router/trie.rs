//! Wildcard filters by their levels. A match costs at most one step per node that a prefix of the topic reaches; it
//! allocates nothing and reports in an order that depends on the filters alone.
//!
//! ```text
//!   root(app) ── "a" ──► node ── "+" ──► node      "a/+"    is the `exact_end` of its last node,
//!                          └── "#": a field        "a/+/#"  the `multi_end` of the same one: `#` needs no node
//! ```

use super::filter::is_hidden;
use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use crate::base::parts::Parts;
use crate::base::pieces::Pieces;
use crate::limits::TOPIC_LEVELS_MAX;

/// No node, or no filter.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The level's own text; `+` for the wildcard child, empty for a root.
    level: Box<str>,
    /// The child for `+`.
    plus: u32,
    /// Filter that ends at this node.
    exact_end: u32,
    /// Filter that ends here with a further `#`.
    multi_end: u32,
    /// Children by text, which the table of edges holds.
    children: u32,
}

impl Node {
    fn is_needed(&self) -> bool {
        self.plus != NONE || self.exact_end != NONE || self.multi_end != NONE || self.children > 0
    }
}

/// Wildcard filters of all apps, each standing for a number of the caller's.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Pieces<Node>,
    /// All children by text, under (parent, text): one table instead of a map per node.
    edges: Parts<u32>,
    /// By app, which is an index into the configuration and so stays small.
    roots: Vec<u32>,
    hash: KeyedHash,
}

impl Trie {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self { nodes: Pieces::new(), edges: Parts::new(), roots: Vec::new(), hash }
    }

    /// Nodes at the moment; 0 when there is no filter.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a filter that is not there; returns the node it hangs on.
    pub(super) fn insert(&mut self, app: AppId, filter: &str, value: u32) -> u32 {
        let mut node = self.root_or_new(app);
        for (depth, level) in filter.split('/').enumerate() {
            assert!(depth < TOPIC_LEVELS_MAX, "filters are checked before they come here");
            if level == "#" {
                let end = &mut self.nodes[node].multi_end;
                assert!(*end == NONE, "a filter is in the trie once");
                *end = value;
                return node;
            }
            node = self.child_or_new(node, level);
        }
        let end = &mut self.nodes[node].exact_end;
        assert!(*end == NONE, "a filter is in the trie once");
        *end = value;
        node
    }

    /// Removes the filter that hangs on `node`, and every node that nothing needs any more.
    pub(super) fn remove(&mut self, app: AppId, node: u32, filter: &str) {
        let entry = &mut self.nodes[node];
        let end = if filter.ends_with('#') { &mut entry.multi_end } else { &mut entry.exact_end };
        assert!(*end != NONE, "a filter that is removed was in the trie");
        *end = NONE;
        let mut node = node;
        while !self.nodes[node].is_needed() {
            let parent = self.nodes[node].parent;
            if parent == NONE {
                self.roots[usize::from(app.0)] = NONE;
                self.nodes.remove(node);
                return;
            }
            self.detach(parent, node);
            self.nodes.remove(node);
            node = parent;
        }
    }

    /// Tells every filter of `app` that matches: the more general first along a path, a level's own text before `+`.
    pub(super) fn for_each_match(&self, app: AppId, topic: &str, found: impl FnMut(u32)) {
        if let Some(&root) = self.roots.get(usize::from(app.0)).filter(|&&root| root != NONE) {
            self.walk(root, topic, found);
        }
    }

    /// Not inlined: who has no wildcard filters need not make room for the walk.
    #[inline(never)]
    fn walk(&self, root: u32, topic: &str, mut found: impl FnMut(u32)) {
        let hidden = is_hidden(topic);
        // Depth first: besides the path's end at most one sibling waits per depth, so the stack cannot overflow. With each
        // node goes where the level behind it begins: behind the last one there is none, one byte behind the topic's end.
        let mut stack = [(root, 0_u32); TOPIC_LEVELS_MAX + 1];
        let mut height = 1;
        while height > 0 {
            height -= 1;
            let (index, start) = stack[height];
            let node = &self.nodes[index];
            let wild = start > 0 || !hidden;
            if node.multi_end != NONE && wild {
                found(node.multi_end);
            }
            let Some(rest) = topic.get(start as usize..) else {
                if node.exact_end != NONE {
                    found(node.exact_end);
                }
                continue;
            };
            if node.plus == NONE && node.children == 0 {
                continue;
            }
            let level = &rest[..rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len())];
            let behind = start + u32::try_from(level.len()).expect("topics are shorter than 64 KiB") + 1;
            if node.plus != NONE && wild {
                stack[height] = (node.plus, behind);
                height += 1;
            }
            if node.children > 0
                && let Some(child) = self.child(index, level)
            {
                stack[height] = (child, behind);
                height += 1;
            }
        }
    }

    fn root_or_new(&mut self, app: AppId) -> u32 {
        let app = usize::from(app.0);
        if self.roots.len() <= app {
            self.roots.resize(app + 1, NONE);
        }
        if self.roots[app] == NONE {
            self.roots[app] = self.new_node(NONE, "");
        }
        self.roots[app]
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let is_it = |&node: &u32| {
            let node = &self.nodes[node];
            node.parent == parent && *node.level == *level
        };
        self.edges.find(self.hash.of(&(parent, level)), is_it).copied()
    }

    fn child_or_new(&mut self, parent: u32, level: &str) -> u32 {
        if level == "+" {
            if self.nodes[parent].plus == NONE {
                let node = self.new_node(parent, level);
                self.nodes[parent].plus = node;
            }
            return self.nodes[parent].plus;
        }
        if let Some(child) = self.child(parent, level) {
            return child;
        }
        let child = self.new_node(parent, level);
        self.nodes[parent].children += 1;
        let (nodes, hash) = (&self.nodes, &self.hash);
        let edge_hash = |&node: &u32| {
            let node = &nodes[node];
            hash.of(&(node.parent, &*node.level))
        };
        self.edges.insert_unique(hash.of(&(parent, level)), child, edge_hash);
        child
    }

    fn detach(&mut self, parent: u32, child: u32) {
        if self.nodes[parent].plus == child {
            self.nodes[parent].plus = NONE;
            return;
        }
        let hash = self.hash.of(&(parent, &*self.nodes[child].level));
        self.edges.remove(hash, |&node| node == child).expect("a child by text is in the table of edges");
        self.nodes[parent].children -= 1;
    }

    fn new_node(&mut self, parent: u32, level: &str) -> u32 {
        self.nodes.insert(Node {
            parent,
            level: level.into(),
            plus: NONE,
            exact_end: NONE,
            multi_end: NONE,
            children: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::matches;
    use super::*;
    use proptest::prelude::*;

    fn filter_strategy() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, multi)| {
            if multi || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    fn topic_strategy() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$s"), Just("c")];
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    fn found(trie: &Trie, app: u16, topic: &str) -> Vec<u32> {
        let mut all = Vec::new();
        trie.for_each_match(AppId(app), topic, |value| all.push(value));
        all
    }

    proptest! {
        #[test]
        fn a_trie_matches_what_comparing_every_filter_does(
            filters in prop::collection::btree_set((0_u16..2, filter_strategy()), 0..24),
            topics in prop::collection::vec((0_u16..2, topic_strategy()), 1..8),
            removed in prop::collection::vec(any::<bool>(), 24),
        ) {
            let filters: Vec<_> = filters.into_iter().collect();
            let mut trie = Trie::new(KeyedHash::new(7));
            let mut nodes = Vec::new();
            for (value, (app, filter)) in filters.iter().enumerate() {
                nodes.push(trie.insert(AppId(*app), filter, u32::try_from(value).expect("few")));
            }
            for round in 0..2 {
                for (app, topic) in &topics {
                    let mut have = found(&trie, *app, topic);
                    have.sort_unstable();
                    let want: Vec<u32> = (0_u32..).zip(&filters).zip(&removed)
                        .filter(|((_, (of, filter)), removed)| {
                            of == app && matches(filter, topic) && (round == 0 || !**removed)
                        })
                        .map(|((value, _), _)| value)
                        .collect();
                    prop_assert_eq!(have, want, "{}", topic);
                }
                for (((app, filter), node), _) in filters.iter().zip(&nodes).zip(&removed)
                    .filter(|(_, removed)| (round == 0) == **removed)
                {
                    trie.remove(AppId(*app), *node, filter);
                }
            }
            prop_assert_eq!(trie.nodes(), 0);
            prop_assert!(trie.edges.is_empty());
        }
    }

    #[test]
    fn the_order_of_matches_does_not_depend_on_the_order_of_subscribing() {
        let filters = ["+/+", "a/#", "#", "a/+", "+/b", "+/#"];
        let order = |from: usize| {
            let mut trie = Trie::new(KeyedHash::new(from as u64));
            for index in 0..filters.len() {
                let value = (from + index) % filters.len();
                trie.insert(AppId(0), filters[value], u32::try_from(value).expect("few"));
            }
            found(&trie, 0, "a/b").into_iter().map(|value| filters[value as usize]).collect::<Vec<_>>()
        };
        assert_eq!(order(0), ["#", "a/#", "a/+", "+/#", "+/b", "+/+"]);
        assert!((1..filters.len()).all(|from| order(from) == order(0)));
    }

    #[test]
    fn deep_filters_match_at_the_level_bound_and_longer_topics_only_through_multi_level_ones() {
        let deep = |level: &str, count: usize| vec![level; count].join("/");
        let mut trie = Trie::new(KeyedHash::new(1));
        trie.insert(AppId(0), &deep("+", TOPIC_LEVELS_MAX), 0);
        trie.insert(AppId(0), &format!("{}/#", deep("+", TOPIC_LEVELS_MAX - 1)), 1);
        assert_eq!(found(&trie, 0, &deep("x", TOPIC_LEVELS_MAX - 1)), [1]);
        assert_eq!(found(&trie, 0, &deep("x", TOPIC_LEVELS_MAX)), [1, 0]);
        assert_eq!(found(&trie, 0, &deep("x", TOPIC_LEVELS_MAX + 1)), [1]);
        assert_eq!(found(&trie, 0, &deep("x", TOPIC_LEVELS_MAX + 9)), [1]);
    }

    #[test]
    fn a_sibling_may_wait_at_every_level() {
        let mut trie = Trie::new(KeyedHash::new(1));
        let topic = vec!["x"; TOPIC_LEVELS_MAX].join("/");
        let mut filters = 0;
        for depth in 0..TOPIC_LEVELS_MAX {
            let mut levels = vec!["x"; TOPIC_LEVELS_MAX];
            levels[depth] = "+";
            trie.insert(AppId(0), &levels.join("/"), filters);
            filters += 1;
        }
        trie.insert(AppId(0), &topic, filters);
        let mut have = found(&trie, 0, &topic);
        have.sort_unstable();
        assert_eq!(have, (0..=filters).collect::<Vec<_>>());
    }
}
