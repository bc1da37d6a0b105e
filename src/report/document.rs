//! A report as a file: JSON for programs, Markdown or a page for people.

use super::{BenchReport, EffectReport, ProbeReport, WarmReport};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io::{self, Write};
use std::path::Path;

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Markdown,
    Page,
}

impl Form {
    /// By the ending of the file's name; JSON unless it says otherwise.
    pub fn of(path: &Path) -> Form {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        match ending.as_deref().and_then(|ending| ending.to_str()) {
            Some("html" | "htm") => Form::Page,
            Some("md" | "markdown") => Form::Markdown,
            _ => Form::Json,
        }
    }
}

/// A report.
pub trait Document: Serialize {
    /// For people, in a form that is not JSON; `None` where there is none.
    fn drawn(&self, form: Form) -> Option<String>;

    /// Whether there is such a form.
    fn has(form: Form) -> bool;
}

impl Document for WarmReport {
    #[cfg(feature = "report")]
    fn drawn(&self, form: Form) -> Option<String> {
        match form {
            Form::Json => None,
            Form::Markdown => Some(super::markdown::warm_markdown(self)),
            Form::Page => Some(super::page::warm_page(self)),
        }
    }

    #[cfg(not(feature = "report"))]
    fn drawn(&self, _: Form) -> Option<String> {
        None
    }

    fn has(form: Form) -> bool {
        form == Form::Json || cfg!(feature = "report")
    }
}

impl Document for BenchReport {
    #[cfg(feature = "report")]
    fn drawn(&self, form: Form) -> Option<String> {
        match form {
            Form::Json => None,
            Form::Markdown => Some(super::markdown::bench_markdown(self)),
            Form::Page => Some(super::page::bench_page(self)),
        }
    }

    #[cfg(not(feature = "report"))]
    fn drawn(&self, _: Form) -> Option<String> {
        None
    }

    fn has(form: Form) -> bool {
        form == Form::Json || cfg!(feature = "report")
    }
}

impl Document for EffectReport {
    #[cfg(feature = "report")]
    fn drawn(&self, form: Form) -> Option<String> {
        match form {
            Form::Json | Form::Markdown => None,
            Form::Page => Some(super::page::effect_page(self)),
        }
    }

    #[cfg(not(feature = "report"))]
    fn drawn(&self, _: Form) -> Option<String> {
        None
    }

    fn has(form: Form) -> bool {
        form == Form::Json || (form == Form::Page && cfg!(feature = "report"))
    }
}

impl Document for ProbeReport {
    fn drawn(&self, _: Form) -> Option<String> {
        None
    }

    fn has(form: Form) -> bool {
        form == Form::Json
    }
}

/// As JSON: objects a field a line, arrays in one line, which would have a line for each number otherwise.
pub fn json<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = Compact(PrettyFormatter::new());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct Compact(PrettyFormatter<'static>);

impl Formatter for Compact {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_it_is() {
        for (name, form) in [
            ("a.html", Form::Page),
            ("/x/A.HTM", Form::Page),
            ("a.md", Form::Markdown),
            ("a.json", Form::Json),
            ("a", Form::Json),
            ("a.html.json", Form::Json),
        ] {
            assert_eq!(Form::of(Path::new(name)), form, "{name}");
        }
    }

    #[test]
    fn json_has_a_line_for_each_field_and_none_for_each_number() {
        let value = serde_json::json!({"a": [1, [2, 3]], "b": [{"c": 1, "d": {}}, {"c": []}], "e": 2});
        let text = String::from_utf8(json(&value).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(text.starts_with("{\n  \"a\": [1, [2, 3]],\n  \"b\": [{\n    \"c\": 1,\n"), "{text}");
    }
}
