//! Markup, piece by piece.
//!
//! Holds: markup is literals only; whatever else goes in is escaped, as text or as the value of an attribute.

/// A page in the making.
#[derive(Debug, Default)]
pub struct Html(String);

/// Attributes of an element: names and values.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Html {
    /// Markup as it is: a literal, never anything from outside.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text of any origin.
    pub fn text(&mut self, text: &str) -> &mut Html {
        text.chars().for_each(|c| escape(c, &mut self.0));
        self
    }

    /// An element's start.
    pub fn open(&mut self, tag: &'static str, attributes: Attributes) -> &mut Html {
        self.start(tag, attributes);
        self.raw(">")
    }

    /// An element's end.
    pub fn close(&mut self, tag: &'static str) -> &mut Html {
        self.raw("</").raw(tag).raw(">")
    }

    /// An element without content, in SVG.
    pub fn void(&mut self, tag: &'static str, attributes: Attributes) -> &mut Html {
        self.start(tag, attributes);
        self.raw("/>")
    }

    /// An element that holds text.
    pub fn leaf(&mut self, tag: &'static str, attributes: Attributes, text: &str) -> &mut Html {
        self.open(tag, attributes).text(text).close(tag)
    }

    /// An element that holds what `inside` adds.
    pub fn nest(
        &mut self,
        tag: &'static str,
        attributes: Attributes,
        inside: impl FnOnce(&mut Html),
    ) -> &mut Html {
        self.open(tag, attributes);
        inside(self);
        self.close(tag)
    }

    /// All of it.
    pub fn into_string(self) -> String {
        self.0
    }

    fn start(&mut self, tag: &'static str, attributes: Attributes) {
        self.raw("<").raw(tag);
        for (name, value) in attributes {
            self.raw(" ").raw(name).raw("=\"").text(value).raw("\"");
        }
    }
}

/// Nothing that ends a text or a value, and nothing that makes text look other than it is.
fn escape(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        '\n' | '\t' => out.push(c),
        // These turn the direction of what follows.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => out.push('\u{fffd}'),
        _ if c.is_control() => out.push('\u{fffd}'),
        _ => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_literal_is_escaped() {
        let mut html = Html::default();
        html.leaf("p", &[("title", "\"><script>")], "a<b>&'\u{202e}\u{0}");
        assert_eq!(
            html.into_string(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">a&lt;b&gt;&amp;&#39;\u{fffd}\u{fffd}</p>"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_markup(text in any::<String>()) {
            let mut html = Html::default();
            html.leaf("p", &[("title", &text)], &text);
            let all = html.into_string();
            prop_assert_eq!((all.matches('<').count(), all.matches('>').count(), all.matches('"').count()), (2, 2, 2));
        }
    }
}
