use crate::{code, head, page, table};
use clap::{Arg, Command, CommandFactory};
use limitador_adapter::cli::Cli;

/// Formats a help text as one paragraph.
fn paragraph(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: String) -> String {
    if text.is_empty() || text.ends_with('.') { text } else { format!("{text}.") }
}

fn usage(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default().iter().map(|name| name.to_string());
    let values = values.collect::<Vec<_>>().join(" ");
    match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => code(&format!("--{long} {values}")),
        Some(long) => code(&format!("--{long}")),
        None => code(&format!("{values}...")),
    }
}

fn row(argument: &Arg) -> [String; 4] {
    let variable = argument.get_env().map(|name| code(&name.to_string_lossy())).unwrap_or_default();
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let default = match argument.is_required_set() {
        true => "required".to_owned(),
        false if argument.get_action().takes_values() => code(&defaults.join(",")),
        false => String::new(),
    };
    let help = argument.get_long_help().or(argument.get_help());
    let words: Vec<_> = argument.get_possible_values().iter().map(|word| code(word.get_name())).collect();
    let words = match argument.get_action().takes_values() && !words.is_empty() {
        true => format!(" One of {}.", words.join(", ")),
        false => String::new(),
    };
    [usage(argument), variable, default, sentence(paragraph(help)) + &words]
}

fn section(of: &str, command: &Command) -> String {
    let about = sentence(paragraph(command.get_long_about().or(command.get_about())));
    let name = format!("{of} {}", command.get_name());
    let mut text = format!("\n## `{name}`\n\n{about}\n");
    if command.has_subcommands() {
        let subcommands = command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help");
        return text + &subcommands.map(|subcommand| section(&name, subcommand)).collect::<String>();
    }
    text.push('\n');
    let arguments =
        command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help");
    text += &table(["Flag", "Variable", "Default", "Meaning"], arguments.map(row));
    text
}

#[test]
fn the_page_of_the_command_line() {
    let mut text = head(
        "Command line",
        "Flags take precedence over environment variables. `WEIR_LOG` sets the log level, in the syntax of Rust's `RUST_LOG`; \
         the default is `warn,limitador_adapter=info`. Put a storage URL that contains a password into `WEIR_STORAGE`, because \
         command lines are visible in process lists.",
    );
    let command = Cli::command();
    command.get_subcommands().for_each(|subcommand| text += &section("limitador-adapter", subcommand));
    page("reference/command-line.md", &text);
}
