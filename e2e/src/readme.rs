//! Runs the commands in documents. `sh` blocks are run as they are, and `console` blocks also contain the
//! expected output.
//!
//! In a console block, `$ COMMAND` is a command, and a backslash continues it on the next line. The lines
//! that follow are its output. There, `...` matches any text within a line. On a line by itself, it matches
//! any number of lines.

use regex::Regex;
use std::path::Path;

/// A command and its expected output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command for the shell.
    pub command: String,
    /// The expected output, with `...` as a wildcard.
    pub prints: String,
}

/// Returns the contents of all fenced blocks in this language.
pub fn blocks(path: &Path, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(found) = line.strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        if found == language {
            blocks.push(block);
        }
    }
    blocks
}

/// Returns the commands in a console block.
pub fn session(block: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        let last = commands.last_mut();
        match (line.strip_prefix("$ "), last) {
            (Some(command), _) if !goes_on => {
                commands.push(Command { command: command.to_owned(), prints: String::new() });
            }
            (_, Some(last)) if goes_on => last.command += &format!("\n{line}"),
            (_, Some(last)) => last.prints += &format!("{line}\n"),
            (_, None) => panic!("the block does not begin with a command: {line}"),
        }
        goes_on = commands.last().is_some_and(|last| last.prints.is_empty()) && line.ends_with('\\');
    }
    commands
}

impl Command {
    /// Returns whether the output matches.
    pub fn accepts(&self, printed: &str) -> bool {
        let mut pattern = String::from(r"\A");
        for line in self.prints.lines() {
            if line == "..." {
                pattern += r"(?:[^\n]*\n)*";
            } else {
                let parts: Vec<_> = line.split("...").map(regex::escape).collect();
                pattern += &format!("{}\\n", parts.join(r"[^\n]*"));
            }
        }
        pattern += r"\z";
        let end = if printed.is_empty() || printed.ends_with('\n') { "" } else { "\n" };
        Regex::new(&pattern).expect("the pattern is escaped").is_match(&format!("{printed}{end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_commands_and_what_they_print() {
        let commands = session("$ echo a \\\n    b\na b\n$ true\n$ seq 3\n1\n...\n3\n");
        let parts: Vec<_> =
            commands.iter().map(|step| (step.command.as_str(), step.prints.as_str())).collect();
        assert_eq!(parts, [("echo a \\\n    b", "a b\n"), ("true", ""), ("seq 3", "1\n...\n3\n")]);
    }

    #[test]
    fn dots_stand_for_anything_within_a_line_or_any_lines() {
        let accepts = |prints: &str, printed: &str| {
            Command { command: String::new(), prints: prints.to_owned() }.accepts(printed)
        };
        assert!(accepts("a...c\n", "a, b, c\n"));
        assert!(!accepts("a...c\n", "a\nc\n"));
        assert!(accepts("a\n...\nc\n", "a\nb\nb\nc\n"));
        assert!(accepts("a\n...\nc\n", "a\nc\n"));
        assert!(accepts("a\n", "a"), "the last line may lack its end");
        assert!(!accepts("a\n", "a\nb\n") && !accepts("a.c\n", "abc\n"));
    }
}
