//! A graph of tasks: nodes, joins, and what each of them waits for.

mod parser;
mod tokens;

use std::fmt;

pub use parser::parse;

/// A directed graph without cycles. Groups are kept as joins and not multiplied out, so a graph
/// takes memory in proportion to its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// In the order in which the text names them first; names are unique.
    pub nodes: Vec<GraphNode>,
    pub joins: Vec<JoinPoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphNode {
    /// What records and `$node.<name>` call it.
    pub name: String,
    /// The entry of `tasks` or the registered task that it runs: `name: task` in the text.
    pub task: String,
    /// It may start when all of these are done.
    pub needs: Vec<Source>,
}

/// A point that is reached when all or any of its sources are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPoint {
    pub join: Join,
    /// Without repetition.
    pub needs: Vec<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// `(a & b)`: the last one counts.
    All,
    /// `(a | b)`: the first one counts; the others run on.
    Any,
}

/// Something that can be waited for, by its index in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Node(usize),
    Join(usize),
}

/// Why a text is not a graph that the native engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphError {
    /// From 1; 0 when the problem is the graph's as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and where it helps, what to write instead.
    pub problem: String,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "invalid graph: {}", self.problem);
        }
        write!(f, "invalid graph: line {}, column {}: {}", self.line, self.column, self.problem)
    }
}

impl std::error::Error for GraphError {}

impl Graph {
    pub fn needs(&self, of: Source) -> &[Source] {
        match of {
            Source::Node(index) => &self.nodes[index].needs,
            Source::Join(index) => &self.joins[index].needs,
        }
    }

    /// Refuses a graph in which something waits for itself; the error has the path, by node names.
    pub(crate) fn check_cycles(&self) -> Result<(), GraphError> {
        // Depth first along `needs`, with a stack of our own: a chain may be as long as the graph.
        let slot = |source: Source| match source {
            Source::Node(index) => index,
            Source::Join(index) => self.nodes.len() + index,
        };
        let mut seen = vec![Mark::New; self.nodes.len() + self.joins.len()];
        for start in 0..self.nodes.len() {
            let mut path = vec![(Source::Node(start), 0)];
            if seen[start] != Mark::New {
                continue;
            }
            seen[start] = Mark::OnPath;
            while let Some((at, next)) = path.last_mut() {
                let Some(&need) = self.needs(*at).get(*next) else {
                    seen[slot(*at)] = Mark::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match seen[slot(need)] {
                    Mark::Done => {}
                    Mark::New => {
                        seen[slot(need)] = Mark::OnPath;
                        path.push((need, 0));
                    }
                    Mark::OnPath => return Err(self.cycle(&path, need)),
                }
            }
        }
        Ok(())
    }

    fn cycle(&self, path: &[(Source, usize)], back_to: Source) -> GraphError {
        const SHOWN: usize = 12;
        let from = path.iter().position(|(at, _)| *at == back_to).unwrap_or(0);
        // The path runs against the arrows; turned round it reads as it was written.
        let mut names: Vec<&str> = path[from..]
            .iter()
            .rev()
            .filter_map(|(at, _)| match at {
                Source::Node(index) => Some(self.nodes[*index].name.as_str()),
                Source::Join(_) => None,
            })
            .collect();
        if let Some(first) = names.iter().enumerate().min_by_key(|(_, name)| self.place(name)) {
            let first = first.0;
            names.rotate_left(first);
        }
        let closing = names.first().copied().unwrap_or_default();
        if names.len() > SHOWN {
            names.truncate(SHOWN);
            names.push("…");
        }
        names.push(closing);
        whole(format!("cycle: {}", names.join(" >> ")))
    }

    fn place(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    OnPath,
    Done,
}

pub(crate) fn whole(problem: String) -> GraphError {
    GraphError { line: 0, column: 0, problem }
}
