//! `man`: a page for each verb and one for the whole, from the same definitions that parse the command line.
//!
//! Holds: a verb or an option that is added has its place in the pages without a change here. What no definition says
//! (files, kernel parameters) is in `overview`.

mod overview;

use super::Cli;
use super::output::Output;
use crate::error::{Context, Result};
use crate::files::write_atomically;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde::Serialize;
use std::path::PathBuf;

/// The pages' section: administration, as the program is in /usr/sbin.
const SECTION: &str = "8";
const SOURCE: &str = concat!("ebs-prewarm ", env!("CARGO_PKG_VERSION"));

/// Write the manual's pages into a folder, one for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ebs-prewarm man /usr/local/share/man/man8
  mkdir pages && ebs-prewarm man pages && man -l pages/ebs-prewarm.8")]
pub struct Args {
    /// Folder to write to; it must be there
    dir: PathBuf,
}

#[derive(Serialize)]
struct Written {
    dir: PathBuf,
    pages: Vec<String>,
}

/// Writes them.
pub fn run(args: Args, output: Output) -> Result<()> {
    let mut written = Written { dir: args.dir, pages: Vec::new() };
    for (name, text) in pages()? {
        write_atomically(&written.dir.join(&name), text.as_bytes())?;
        written.pages.push(name);
    }
    output.print(&written, |it| format!("wrote {} pages to {}", it.pages.len(), it.dir.display()))
}

/// Names of files and what is in them.
fn pages() -> Result<Vec<(String, String)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, None, &mut pages).context(|| "failed to make the manual's pages".into())?;
    Ok(pages)
}

/// The page of a command and those of the commands below it.
fn collect(command: &Command, above: Option<&str>, pages: &mut Vec<(String, String)>) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    pages.push((format!("{name}.{SECTION}"), page(command, &name, above)?));
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.into_iter().try_for_each(|below| collect(below, Some(&name), pages))
}

fn page(command: &Command, name: &str, above: Option<&str>) -> std::io::Result<String> {
    let command = &command.clone().subcommand_help_heading("VERBS").subcommand_value_name("VERB");
    let man = Man::new(command.clone()).section(SECTION);
    let mut title = Roff::new();
    // No date: the same source gives the same pages.
    title.control("TH", [&name.to_uppercase(), SECTION, "\"\"", SOURCE, "ebs-prewarm"]);
    // Names of units and options are to be copied: none is broken at a hyphen.
    title.control("nh", []);
    title.control("ad", ["l"]);
    let mut text = title.render().into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut own = Roff::new();
    if above.is_none() {
        overview::description(&mut own);
    }
    text.extend(own.to_roff().into_bytes());
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    let mut own = Roff::new();
    if let Some(after) = command.get_after_help() {
        after_help(&mut own, &after.to_string());
    }
    match above {
        None => overview::sections(&mut own),
        Some(above) => see_also(&mut own, command, name, above),
    }
    text.extend(own.to_roff().into_bytes());
    Ok(tidied(&String::from_utf8_lossy(&text)))
}

/// What the help says after the options: examples as they are to be typed, and paragraphs.
fn after_help(roff: &mut Roff, text: &str) {
    let (examples, notes): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").partition(|part| part.starts_with("Example"));
    for (heading, parts) in [("EXAMPLES", examples), ("NOTES", notes)] {
        if parts.is_empty() {
            continue;
        }
        roff.control("SH", [heading]);
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                roff.control("PP", []);
            }
            paragraph(roff, part);
        }
    }
}

/// Before and after lines that stay as they are.
const TYPED: [&str; 2] = ["RS", "nf"];
const TYPED_END: [&str; 2] = ["fi", "RE"];

fn controls(roff: &mut Roff, names: [&str; 2]) {
    for name in names {
        roff.control(name, []);
    }
}

/// Indented lines stay as they are; other lines run on.
fn paragraph(roff: &mut Roff, text: &str) {
    let mut typed = false;
    for line in text.lines().filter(|line| !line.starts_with("Example")) {
        let is_typed = line.starts_with("  ");
        if is_typed != typed {
            controls(roff, if is_typed { TYPED } else { TYPED_END });
        }
        typed = is_typed;
        roff.text([roman(line.trim_start())]);
    }
    if typed {
        controls(roff, TYPED_END);
    }
}

fn see_also(roff: &mut Roff, command: &Command, name: &str, above: &str) {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let mut others: Vec<String> =
        below.map(|below| format!("{name}-{}({SECTION})", below.get_name())).collect();
    others.insert(0, format!("{above}({SECTION})"));
    if above != "ebs-prewarm" {
        others.insert(0, format!("ebs-prewarm({SECTION})"));
    }
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman(format!("As for all verbs: see ebs-prewarm({SECTION})."))]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
}

/// What readers of pages complain about: an empty line, a break beside one, blanks at a line's end.
fn tidied(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = if line.is_empty() { ".sp" } else { line.trim_end() };
        let last = lines.last().copied();
        match line {
            ".sp" if last == Some(".br") => _ = lines.pop(),
            ".br" if last == Some(".sp") => continue,
            _ => {}
        }
        lines.push(line);
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn page_of(name: &str) -> String {
        let found = pages().unwrap().into_iter().find(|(page, _)| page == name);
        found.unwrap_or_else(|| panic!("no page {name}")).1
    }

    #[test]
    fn each_verb_has_a_page_with_all_its_options_and_the_overview_names_it() {
        fn check(command: &Command, name: &str) {
            let page = page_of(&format!("{name}.8"));
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let named = argument.get_long().map(|long| long.replace('-', r"\-"));
                let named = named.unwrap_or_else(|| {
                    argument
                        .get_value_names()
                        .map_or(argument.get_id().to_string(), |names| names[0].to_string())
                });
                assert!(page.contains(&named), "{name}: {named} is missing in\n{page}");
            }
            for below in command.get_subcommands() {
                let below_name = format!("{name}-{}", below.get_name());
                assert!(
                    page.contains(&format!("{}(8)", below_name.replace('-', r"\-"))),
                    "{below_name}\n{page}"
                );
                check(below, &below_name);
            }
        }
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        check(&root, "ebs-prewarm");
    }

    #[test]
    fn examples_are_typed_as_they_stand_and_prose_runs_on() {
        let mut roff = Roff::new();
        after_help(&mut roff, "Examples:\n  do this\n  do that\n\nProse goes\non.\n  typed\nmore");
        assert_eq!(
            roff.to_roff(),
            ".SH EXAMPLES\n.RS\n.nf\ndo this\ndo that\n.fi\n.RE\n\
             .SH NOTES\nProse goes\non.\n.RS\n.nf\ntyped\n.fi\n.RE\nmore\n"
        );
    }

    #[test]
    fn each_exit_code_is_in_the_overview_once() {
        let page = page_of("ebs-prewarm.8");
        let status = page.split(".SH \"EXIT STATUS\"\n").nth(1).unwrap().split(".SH").next().unwrap();
        let codes: Vec<&str> =
            status.split(".TP\n").skip(1).map(|entry| entry.lines().next().unwrap()).collect();
        let kinds = [
            Kind::Failed,
            Kind::Usage,
            Kind::Unreadable,
            Kind::OtherVolume,
            Kind::Deadline,
            Kind::NoDaemon,
            Kind::NotWarm,
        ];
        let mut wanted: Vec<String> = kinds.iter().map(|kind| kind.exit_code().to_string()).collect();
        wanted.insert(0, "0".into());
        assert_eq!(codes, wanted);
    }
}
