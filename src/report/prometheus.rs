//! Metrics as Prometheus reads them.

use std::fmt::{Display, Write};

/// Metrics so far, one after the other. Names get the prefix of this program.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub String);

impl Metrics {
    /// What a metric is; its values follow.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP ebs_prewarm_{name} {help}\n# TYPE ebs_prewarm_{name} {kind}\n");
    }

    /// A value with labels by name, which may hold anything.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "ebs_prewarm_{name}");
        for (at, (label, of)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(of));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }

    /// The value with a label of this name, which may hold anything.
    pub fn labelled(&mut self, name: &str, label: &str, of: &str, value: impl Display) {
        self.value(name, &[(label, of)], value);
    }

    /// A metric that has one value.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.value(name, &[], value);
    }
}

/// As the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
