//! Graph text to tokens, each with its place.

use super::GraphError;
use crate::model::limits::MAX_NAME_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Name,
    Then,
    And,
    Or,
    Colon,
    Open,
    Close,
    OpenBrace,
    Newline,
    Semicolon,
    /// A character that begins no token; nothing after it is read.
    Unknown,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    line: usize,
    column: usize,
}

impl Token<'_> {
    /// An error at this place; a character that is no token says so itself.
    pub fn error(&self, problem: String) -> GraphError {
        let problem = match self.kind {
            TokenKind::Unknown if matches!(self.text, ">" | "->") => {
                "write `>>` between tasks that follow each other".to_owned()
            }
            TokenKind::Unknown => format!("unexpected character `{}`", self.text.escape_debug()),
            _ => problem,
        };
        GraphError { line: self.line, column: self.column, problem }
    }

    pub fn shown(&self) -> String {
        match self.kind {
            TokenKind::End => "the end of the graph".to_owned(),
            TokenKind::Newline => "the end of the line".to_owned(),
            TokenKind::And | TokenKind::Or => self.text.to_owned(),
            _ => format!("`{}`", self.text),
        }
    }
}

pub(super) struct Lexer<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Result<Self, GraphError> {
        let mut tokens = Vec::new();
        let (mut line, mut column) = (1, 1);
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (kind, length) = match first {
                '\n' => (Some(TokenKind::Newline), 1),
                c if c.is_whitespace() => (None, c.len_utf8()),
                '#' => (None, rest.find('\n').unwrap_or(rest.len())),
                ';' => (Some(TokenKind::Semicolon), 1),
                '&' => (Some(TokenKind::And), 1),
                '|' => (Some(TokenKind::Or), 1),
                ':' => (Some(TokenKind::Colon), 1),
                '(' => (Some(TokenKind::Open), 1),
                ')' => (Some(TokenKind::Close), 1),
                '{' => (Some(TokenKind::OpenBrace), 1),
                '>' if rest.starts_with(">>") => (Some(TokenKind::Then), 2),
                c if c.is_alphabetic() || c == '_' => (Some(TokenKind::Name), name_length(rest)),
                '-' if rest.starts_with("->") => (Some(TokenKind::Unknown), 2),
                c => (Some(TokenKind::Unknown), c.len_utf8()),
            };
            let (taken, after) = rest.split_at(length);
            if let Some(kind) = kind {
                let token = Token { kind, text: taken, line, column };
                if taken.len() > MAX_NAME_BYTES {
                    return Err(token.error(format!("a name of more than {MAX_NAME_BYTES} bytes")));
                }
                tokens.push(token);
                if kind == TokenKind::Unknown {
                    break;
                }
            }
            if first == '\n' {
                line += 1;
                column = 1;
            } else {
                column += taken.chars().count();
            }
            rest = after;
        }
        tokens.push(Token { kind: TokenKind::End, text: "", line, column });
        Ok(Lexer { tokens, at: 0 })
    }

    pub fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    /// Takes the next token; the end stays.
    pub fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    /// Takes an operator, also from the beginning of a later line.
    pub fn take_operator(&mut self, kind: TokenKind) -> bool {
        let start = self.at;
        self.skip_newlines();
        let found = self.peek().kind == kind;
        self.at = if found { self.at + 1 } else { start };
        found
    }

    pub fn skip_newlines(&mut self) {
        while self.peek().kind == TokenKind::Newline {
            self.at += 1;
        }
    }

    pub fn skip_ends(&mut self) {
        while matches!(self.peek().kind, TokenKind::Newline | TokenKind::Semicolon) {
            self.at += 1;
        }
    }
}

/// Letters, digits, `_`, and `-` or `.` between them (`a->b` is not a name `a-`).
fn name_length(text: &str) -> usize {
    let is_plain = |c: char| c.is_alphanumeric() || c == '_';
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let inner = matches!(c, '-' | '.') && chars.peek().is_some_and(|(_, next)| is_plain(*next));
        if !is_plain(c) && !inner {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}
