//! Graph text to a checked graph.

use std::collections::HashMap;

use super::tokens::{Lexer, Token, TokenKind};
use super::{Graph, GraphError, GraphNode, Join, JoinPoint, Source, whole};
use crate::model::limits::{MAX_GRAPH_BYTES, MAX_GRAPH_DEPTH, MAX_GRAPH_NODES};

/// The constructs of Pyoco's graph language that are not sequences or groups.
const CONTROL_FLOW: [&str; 5] = ["pipe", "switch", "repeat", "foreach", "until"];

/// Reads graph text.
///
/// ```text
/// statement  = branch, ended by a line break or `;`
/// branch     = step { ">>" step }
/// step       = node | "(" branch { "&" branch } ")" | "(" branch { "|" branch } ")"
/// node       = name [ ":" task ]
/// ```
/// A statement goes on over a line break next to an operator and inside of parentheses. Statements
/// that name the same node share it. `#` begins a comment.
pub fn parse(text: &str) -> Result<Graph, GraphError> {
    if text.len() > MAX_GRAPH_BYTES {
        return Err(whole(format!("{} bytes of text, at most {MAX_GRAPH_BYTES} are read", text.len())));
    }
    let mut parser = Parser { lexer: Lexer::new(text)?, graph: Graph::default(), places: HashMap::new() };
    parser.statements()?;
    if parser.graph.nodes.is_empty() {
        return Err(whole("it names no task".to_owned()));
    }
    parser.graph.check_cycles()?;
    Ok(parser.graph)
}

/// A part of a statement that stands for one step.
struct Fragment {
    entries: Vec<usize>,
    /// What is done when it is done.
    exit: Source,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    graph: Graph,
    places: HashMap<String, usize>,
}

impl Parser<'_> {
    fn statements(&mut self) -> Result<(), GraphError> {
        loop {
            self.lexer.skip_ends();
            if self.lexer.peek().kind == TokenKind::End {
                return Ok(());
            }
            self.branch(0)?;
            let token = self.lexer.peek();
            match token.kind {
                TokenKind::End | TokenKind::Newline | TokenKind::Semicolon => {}
                TokenKind::And | TokenKind::Or => {
                    return Err(token
                        .error(format!("put parentheses around branches: `(a {} b) >> c`", token.shown())));
                }
                _ => return Err(token.error(format!("expected `>>` before {}", token.shown()))),
            }
        }
    }

    /// A sequence of steps.
    fn branch(&mut self, depth: usize) -> Result<Fragment, GraphError> {
        let mut whole = self.step(depth)?;
        while self.lexer.take_operator(TokenKind::Then) {
            self.lexer.skip_newlines();
            let next = self.step(depth)?;
            for &entry in &next.entries {
                let needs = &mut self.graph.nodes[entry].needs;
                if !needs.contains(&whole.exit) {
                    needs.push(whole.exit);
                }
            }
            whole.exit = next.exit;
        }
        Ok(whole)
    }

    fn step(&mut self, depth: usize) -> Result<Fragment, GraphError> {
        let token = self.lexer.next();
        match token.kind {
            TokenKind::Open => self.group(&token, depth + 1),
            TokenKind::Name => self.node(&token),
            TokenKind::End | TokenKind::Newline => {
                Err(token.error("expected a task name after `>>`".to_owned()))
            }
            _ => Err(token.error(format!("expected a task name, found {}", token.shown()))),
        }
    }

    fn group(&mut self, open: &Token, depth: usize) -> Result<Fragment, GraphError> {
        if depth > MAX_GRAPH_DEPTH {
            return Err(open.error(format!("more than {MAX_GRAPH_DEPTH} levels of parentheses")));
        }
        let mut join = None;
        let mut entries = Vec::new();
        let mut exits = Vec::new();
        loop {
            self.lexer.skip_newlines();
            let branch = self.branch(depth)?;
            for entry in branch.entries {
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
            if !exits.contains(&branch.exit) {
                exits.push(branch.exit);
            }
            self.lexer.skip_newlines();
            let token = self.lexer.next();
            let this = match token.kind {
                TokenKind::Close => break,
                TokenKind::And => Join::All,
                TokenKind::Or => Join::Any,
                TokenKind::End => {
                    return Err(open.error("this parenthesis is not closed".to_owned()));
                }
                _ => {
                    return Err(token.error(format!("expected `&`, `|` or `)` before {}", token.shown())));
                }
            };
            if join.is_some_and(|join| join != this) {
                return Err(
                    token.error("`&` and `|` in one group; put parentheses around one of them".to_owned())
                );
            }
            join = Some(this);
        }
        let exit = match (join, exits.as_slice()) {
            (None, [only]) | (Some(_), [only]) => *only,
            (join, _) => {
                if self.graph.joins.len() >= MAX_GRAPH_NODES {
                    return Err(open.error(format!("more than {MAX_GRAPH_NODES} groups")));
                }
                let join = join.unwrap_or(Join::All);
                self.graph.joins.push(JoinPoint { join, needs: exits });
                Source::Join(self.graph.joins.len() - 1)
            }
        };
        Ok(Fragment { entries, exit })
    }

    fn node(&mut self, name: &Token) -> Result<Fragment, GraphError> {
        let next = self.lexer.peek();
        if matches!(next.kind, TokenKind::Open | TokenKind::OpenBrace) {
            return Err(if CONTROL_FLOW.contains(&name.text) {
                name.error(format!(
                    "`{}` is not supported by the native engine yet; run this flow with Pyoco",
                    name.text
                ))
            } else {
                name.error(format!("unknown construct `{}`", name.text))
            });
        }
        let task = if self.lexer.take_operator(TokenKind::Colon) {
            self.lexer.skip_newlines();
            let task = self.lexer.next();
            if task.kind != TokenKind::Name {
                return Err(task.error(format!(
                    "expected a task name after `{}:`, found {}",
                    name.text,
                    task.shown()
                )));
            }
            if matches!(self.lexer.peek().kind, TokenKind::Open | TokenKind::OpenBrace) {
                return self.node(&task);
            }
            Some(task)
        } else {
            None
        };
        let index = match self.places.get(name.text) {
            Some(&index) => {
                if task.is_some() {
                    return Err(name.error(format!("duplicate node name `{}`", name.text)));
                }
                index
            }
            None => self.add(name, task.as_ref().unwrap_or(name))?,
        };
        Ok(Fragment { entries: vec![index], exit: Source::Node(index) })
    }

    fn add(&mut self, name: &Token, task: &Token) -> Result<usize, GraphError> {
        let index = self.graph.nodes.len();
        if index >= MAX_GRAPH_NODES {
            return Err(name.error(format!("more than {MAX_GRAPH_NODES} tasks")));
        }
        self.graph.nodes.push(GraphNode {
            name: name.text.to_owned(),
            task: task.text.to_owned(),
            needs: Vec::new(),
        });
        self.places.insert(name.text.to_owned(), index);
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name<-need,need` per node, joins as `&(…)` and `|(…)`.
    fn shape(text: &str) -> String {
        let graph = parse(text).unwrap();
        fn show(graph: &Graph, source: Source) -> String {
            match source {
                Source::Node(index) => graph.nodes[index].name.clone(),
                Source::Join(index) => {
                    let join = &graph.joins[index];
                    let sign = if join.join == Join::All { '&' } else { '|' };
                    let needs: Vec<String> = join.needs.iter().map(|n| show(graph, *n)).collect();
                    format!("{sign}({})", needs.join(","))
                }
            }
        }
        let nodes: Vec<String> = graph
            .nodes
            .iter()
            .map(|node| {
                let needs: Vec<String> = node.needs.iter().map(|n| show(&graph, *n)).collect();
                let task = if node.task == node.name { "" } else { &format!(":{}", node.task) };
                format!("{}{task}<-{}", node.name, needs.join(","))
            })
            .collect();
        nodes.join(" ")
    }

    #[test]
    fn the_syntax_has_sequences_groups_and_shared_nodes() {
        for (text, expected) in [
            ("a", "a<-"),
            ("a >> b >> c", "a<- b<-a c<-b"),
            ("a>>b # end\n# whole line\n>> c", "a<- b<-a c<-b"),
            ("a >>\n\n b", "a<- b<-a"),
            ("a >> b\nc >> d", "a<- b<-a c<- d<-c"),
            ("a >> b; c >> d;", "a<- b<-a c<- d<-c"),
            ("a >> b\na >> c\nb >> d; c >> d", "a<- b<-a c<-a d<-b,c"),
            ("a >> b; a >> b", "a<- b<-a"),
            ("a >> (b & c) >> d", "a<- b<-a c<-a d<-&(b,c)"),
            ("(a | b) >> c", "a<- b<- c<-|(a,b)"),
            ("(\na >> b &\n c\n) >> d", "a<- b<-a c<- d<-&(b,c)"),
            ("((a | b) & c) >> (d & e)", "a<- b<- c<- d<-&(|(a,b),c) e<-&(|(a,b),c)"),
            ("(a)", "a<-"),
            ("(a & a) >> b", "a<- b<-a"),
            ("x: a >> y: a\nx >> z", "x:a<- y:a<-x z<-x"),
            ("é >> 日本", "é<- 日本<-é"),
            ("a-b.c >> d_1", "a-b.c<- d_1<-a-b.c"),
            (
                "prepare\n>> (left & right)\n>> finish\n",
                "prepare<- left<-prepare right<-prepare finish<-&(left,right)",
            ),
        ] {
            assert_eq!(shape(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_error_has_its_place_and_the_way_out() {
        for (text, expected) in [
            ("", "invalid graph: it names no task"),
            ("# x\n;\n", "invalid graph: it names no task"),
            ("a >>", "line 1, column 5: expected a task name after `>>`"),
            (">> a", "line 1, column 1: expected a task name, found `>>`"),
            ("a b", "line 1, column 3: expected `>>` before `b`"),
            ("a\n  & b", "line 2, column 3: expected a task name, found &"),
            ("a & b >> c", "column 3: put parentheses around branches: `(a & b) >> c`"),
            ("(a & b | c)", "column 8: `&` and `|` in one group"),
            ("(a & b", "column 1: this parenthesis is not closed"),
            ("a)", "column 2: expected `>>` before `)`"),
            ("(a b)", "column 4: expected `&`, `|` or `)` before `b`"),
            ("()", "column 2: expected a task name, found `)`"),
            ("a -> b", "column 3: write `>>` between tasks"),
            ("a->b", "column 2: write `>>` between tasks"),
            ("a > b", "column 3: write `>>` between tasks"),
            ("a >> [b, c]", "column 6: unexpected character `[`"),
            ("1a", "column 1: unexpected character `1`"),
            ("x: a >> x: b", "column 9: duplicate node name `x`"),
            ("a >> x: >> b", "column 9: expected a task name after `x:`, found `>>`"),
            ("a >> switch(on={{m}}){ x: b }", "column 6: `switch` is not supported"),
            ("a >> repeat(n=3){ b }", "column 6: `repeat` is not supported"),
            ("x: pipe(P)", "column 4: `pipe` is not supported"),
            ("foreach(over={{i}}){ a }", "column 1: `foreach` is not supported"),
            ("until(cond={{d}}){ a }", "column 1: `until` is not supported"),
            ("all(a, b)", "column 1: unknown construct `all`"),
            ("a, b", "column 2: unexpected character `,`"),
            ("any(a)", "column 1: unknown construct `any`"),
            ("a >> a", "invalid graph: cycle: a >> a"),
            ("a >> b >> c\nc >> b", "invalid graph: cycle: b >> c >> b"),
            ("s >> (a | b) >> c >> a", "invalid graph: cycle: a >> c >> a"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_bounds_hold_and_large_graphs_are_quick() {
        let chain = |n: usize| (0..n).map(|i| format!("n{i}")).collect::<Vec<_>>();
        assert_eq!(parse(&chain(MAX_GRAPH_NODES).join(" >> ")).unwrap().nodes.len(), MAX_GRAPH_NODES);
        let (left, right) = (chain(MAX_GRAPH_NODES), "(".repeat(MAX_GRAPH_DEPTH + 1));
        let (front, back) = left.split_at(MAX_GRAPH_NODES / 2);
        let wide = parse(&format!("({}) >> ({})", front.join("&"), back.join("&"))).unwrap();
        assert_eq!((wide.joins.len(), wide.nodes[MAX_GRAPH_NODES - 1].needs.len()), (2, 1));
        for (text, why) in [
            (chain(MAX_GRAPH_NODES + 1).join("\n"), "more than 2000 tasks"),
            (format!("{right}a"), "levels of parentheses"),
            ("a".repeat(MAX_GRAPH_BYTES + 1), "bytes of text"),
            ("a".repeat(1000), "a name of more than"),
            ("(a|b)>>c;".repeat(MAX_GRAPH_NODES + 1), "groups"),
            (format!("{} >> n0", chain(100).join(" >> ")), "n0 >> n1 >> n2"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }
}
