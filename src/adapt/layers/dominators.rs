//! Which vertices of a graph without cycles all ways lead through.

/// The tree of dominators: the parent of a vertex is the nearest one that every way from the root to it, or
/// from it to the root, leads through.
pub(super) struct Tree {
    parents: Vec<Option<usize>>,
    depths: Vec<u32>,
    root: usize,
}

impl Tree {
    /// `order` lists every vertex behind those that `neighbours` gives for it, `None` among them being the
    /// root. Vertices without a way to the root have no place in the tree.
    pub fn new(
        order: impl Iterator<Item = usize>,
        vertices: usize,
        neighbours: impl Fn(usize, &mut Vec<Option<usize>>),
    ) -> Tree {
        let root = vertices;
        let mut tree = Tree {
            parents: vec![None; vertices + 1],
            depths: vec![0; vertices + 1],
            root,
        };
        let mut next = Vec::new();
        for vertex in order {
            next.clear();
            neighbours(vertex, &mut next);
            let next = next.iter().map(|other| other.unwrap_or(root));
            let known = next.filter(|other| tree.contains(*other));
            let common = known.reduce(|a, b| tree.meet(a, b));
            tree.parents[vertex] = common;
            tree.depths[vertex] = common.map_or(0, |parent| tree.depths[parent] + 1);
        }
        tree
    }

    /// Whether there is a way between the vertex and the root.
    pub fn contains(&self, vertex: usize) -> bool {
        vertex == self.root || self.parents[vertex].is_some()
    }

    /// The nearest vertex that all ways of both lead through, itself included.
    pub fn meet(&self, mut a: usize, mut b: usize) -> usize {
        while a != b {
            match self.depths[a] > self.depths[b] {
                true => a = self.parents[a].unwrap_or(self.root),
                false => b = self.parents[b].unwrap_or(self.root),
            }
        }
        a
    }

    /// The vertex and all that lie between it and the root, which is left out.
    pub fn chain(&self, vertex: usize) -> impl Iterator<Item = usize> + '_ {
        let first = (vertex != self.root && self.contains(vertex)).then_some(vertex);
        std::iter::successors(first, |at| {
            self.parents[*at].filter(|parent| *parent != self.root)
        })
    }

    /// Whether all ways of the vertex lead through the other.
    pub fn passes(&self, vertex: usize, through: usize) -> bool {
        self.contains(vertex) && self.meet(vertex, through) == through
    }
}
