//! Parses source text and formats its errors. The limits ensure that every later step runs on a small stack.

use super::hints;
use cel_interpreter::IdedExpr;
use cel_interpreter::parser::pratt_parser::{Lexer, TokenKind};
use cel_interpreter::parser::{ParseErrors, PrattParser};

/// The maximum length of an expression, in bytes.
const LONGEST: usize = 4096;
/// The maximum number of tokens. In the worst case, parsing and dropping a tree recurse once per token.
const MAX_TOKENS: usize = 1024;
/// The maximum nesting of brackets and operators.
pub(super) const DEEPEST: u16 = 32;

/// Parses an expression and expands its macros.
pub(super) fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > LONGEST {
        return Err(format!("the expression is {} bytes long; at most {LONGEST} are allowed", source.len()));
    }
    if source.trim().is_empty() {
        return Err("the expression is empty".to_owned());
    }
    count_tokens(source)?;
    PrattParser::default()
        .enable_optional_syntax(true)
        .max_recursion_depth(DEEPEST)
        .parse(source)
        .map_err(|errors| describe(source, &errors))
}

fn count_tokens(source: &str) -> Result<(), String> {
    let mut lexer = Lexer::new(source);
    let (mut depth, mut tokens) = (0_u16, 0_usize);
    while tokens <= MAX_TOKENS {
        match lexer.lex().kind {
            // The parser reports the error.
            TokenKind::TokEnd | TokenKind::TokError => return Ok(()),
            TokenKind::TokWhitespace | TokenKind::TokComment => continue,
            TokenKind::TokLeftParen | TokenKind::TokLeftBracket | TokenKind::TokLeftBrace => {
                depth = depth.saturating_add(1);
            }
            TokenKind::TokRightParen | TokenKind::TokRightBracket | TokenKind::TokRightBrace => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        tokens = tokens.saturating_add(1);
        if depth > DEEPEST {
            return Err(too_deep());
        }
    }
    Err(format!("the expression has too many parts; at most {MAX_TOKENS} words and signs are allowed"))
}

pub(super) fn too_deep() -> String {
    format!(
        "the expression is nested too deeply; at most {DEEPEST} levels of brackets and operators are allowed"
    )
}

fn describe(source: &str, errors: &ParseErrors) -> String {
    let Some(first) = errors.errors.iter().min_by_key(|error| error.pos) else {
        return "syntax error".to_owned();
    };
    let place = match first.pos {
        (line, _) if line < 1 => String::new(),
        (1, column) if !source.trim_end().contains('\n') => format!(" at column {column}"),
        (line, column) => format!(" at line {line}, column {column}"),
    };
    let hint = hints::of_syntax(source).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("syntax error{place}: {}{hint}", plainly(&first.msg))
}

/// Rewrites the parser's message without its jargon.
fn plainly(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let mismatch = message.strip_prefix("mismatched input ").and_then(|rest| rest.split_once(" expecting "));
    let Some((found, expected)) = mismatch else { return message.to_owned() };
    match (found.trim_matches('\''), expected) {
        ("<EOF>", expected) => format!("unexpected end; {} is expected", a_word(expected)),
        (_, "<EOF>") => format!("unexpected {found}"),
        _ => format!("{found} where {} is expected", a_word(expected)),
    }
}

fn a_word(expected: &str) -> &str {
    if expected == "expression" { "a value" } else { expected }
}
