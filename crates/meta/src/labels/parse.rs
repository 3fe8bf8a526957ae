//! The string form of label selectors, with the tokens and the error texts of upstream's parser.

use super::{Operator, Requirement, SelectorError};
use crate::field::{FieldError, FieldPath};
use crate::names;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn token_of(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Each of these alone is an operator.
fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// Splits the text into tokens; a NUL ends it, as upstream.
fn scan(text: &str) -> Vec<(Token, String)> {
    let mut rest = text.split('\0').next().unwrap_or_default();
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        if !is_special(first) {
            let end = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            tokens.push((token_of(word).unwrap_or(Token::Identifier), word.to_owned()));
            rest = after;
            continue;
        }
        // The longest operator; every special character alone is one, except that "=!" is two.
        let candidates = [rest.get(..2), rest.get(..1)];
        let (token, operator) = candidates
            .into_iter()
            .flatten()
            .find_map(|text| Some((token_of(text)?, text)))
            .expect("every special character is an operator by itself");
        tokens.push((token, operator.to_owned()));
        rest = &rest[operator.len()..];
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

fn err<T>(text: String) -> Result<T, SelectorError> {
    Err(SelectorError(text))
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser {
        tokens: scan(text),
        position: 0,
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Identifier | Token::Not, _) => {
                let requirement = parser
                    .requirement()
                    .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                requirements.push(requirement);
                match parser.next() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => {
                        let (token, found) = parser.peek();
                        if !matches!(token, Token::Identifier | Token::Not) {
                            return err(format!("found '{found}', expected: identifier after ','"));
                        }
                    }
                    (_, found) => {
                        return err(format!("found '{found}', expected: ',' or 'end of string'"));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, found) => {
                return err(format!(
                    "found '{found}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
    }
}

impl Parser {
    /// The current token as it stands: `in` and `notin` are operators.
    fn raw(&self) -> (Token, String) {
        self.tokens
            .get(self.position)
            .cloned()
            .unwrap_or((Token::End, String::new()))
    }

    /// The current token where `in` and `notin` are plain words.
    fn peek(&self) -> (Token, String) {
        let (token, text) = self.raw();
        match token {
            Token::In | Token::NotIn => (Token::Identifier, text),
            _ => (token, text),
        }
    }

    fn next(&mut self) -> (Token, String) {
        let item = self.peek();
        self.position += 1;
        item
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let path = FieldPath::default();
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return err(format!("found '{key}', expected: identifier"));
        }
        let reasons = names::is_label_key(&key);
        if !reasons.is_empty() {
            return Err(vec![FieldError::invalid(&path, key, &reasons.join("; "))].into());
        }
        if negated {
            return Ok(Requirement::new(&key, Operator::DoesNotExist, Vec::new(), &path)?);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(Requirement::new(&key, Operator::Exists, Vec::new(), &path)?);
        }
        let (token, found) = self.raw();
        self.position += 1;
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => {
                return err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Ok(Requirement::new(&key, operator, values, &path)?)
    }

    /// `(x,y,z)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (token, found) = self.next();
        if token != Token::Open {
            return err(format!("found '{found}' expected: '('"));
        }
        let (token, found) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {}
            Token::Close => {
                self.position += 1;
                return Ok(vec![String::new()]);
            }
            _ => return err(format!("found '{found}', expected: ',', ')' or identifier")),
        }
        let mut values = BTreeSet::new();
        loop {
            let (token, found) = self.next();
            match token {
                Token::Identifier => {
                    values.insert(found);
                    let (token, found) = self.peek();
                    match token {
                        Token::Comma => {}
                        Token::Close => break,
                        _ => return err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            break;
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return err(format!("found '{found}', expected: ',', or identifier")),
            }
        }
        self.position += 1;
        Ok(values.into_iter().collect())
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, value) => Ok(value),
            (_, found) => err(format!("found '{found}', expected: identifier")),
        }
    }
}
