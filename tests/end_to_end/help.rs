//! What every command says of itself, read on terminals of two widths.

use crate::process::binary;

fn help(arguments: &[&str], columns: usize) -> String {
    let output = binary().args(arguments).env("COLUMNS", columns.to_string()).output().expect("runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn commands() -> Vec<String> {
    let text = help(&["--help"], 80);
    let list = text.split("Commands:").nth(1).expect("commands").split("\n\n").next().expect("a list").to_string();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_string).collect()
}

/// A line that ends where the next word would have fitted was wrapped by hand, and is wrapped again on another terminal.
fn assert_wrapped_once(text: &str, width: usize, what: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let (line, next) = (pair[0], pair[1]);
        let length = line.chars().count();
        let indent = |line: &str| line.len() - line.trim_start().len();
        // What is longer has no place to break.
        assert!(
            length <= width || !line.trim().contains(' ') || line.starts_with("  "),
            "{what}: {length} columns: {line}"
        );
        let is_prose = |line: &str| {
            line.split_whitespace().count() > 3
                && line.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '`')
        };
        let ends = line.ends_with([':', '.', '?', '!', ']', ')']) || !is_prose(line) || !is_prose(next);
        if ends || indent(line) != indent(next) || (indent(line) == 2 && line.contains("  ")) {
            continue;
        }
        let word = next.split_whitespace().next().unwrap_or_default().chars().count();
        assert!(length + 1 + word > width, "{what}: a half line: {line}");
    }
}

#[test]
fn help_is_wrapped_once() {
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:?}");
    for columns in [80, 120] {
        assert_wrapped_once(&help(&["--help"], columns), columns, "cornjacket --help");
        for command in commands.iter().filter(|command| *command != "help") {
            let text = help(&[command, "--help"], columns);
            assert_wrapped_once(&text, columns, &format!("cornjacket {command} --help at {columns}"));
        }
    }
}
