//! What the pages of `bench` and `warm` share: their frame, figures at the top, bars, the price of the alternatives.

use super::html::Html;
use super::svg::{self, Scale, WIDTH, n, span};
use crate::report::alternatives;

const STYLE: &str = include_str!("style.css");

/// How it went, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    Doubtful,
    Bad,
}

impl Mood {
    fn class_and_sign(self) -> (&'static str, &'static str) {
        match self {
            Mood::Good => ("status good", "\u{2713}"),
            Mood::Doubtful => ("status doubtful", "!"),
            Mood::Bad => ("status bad", "\u{2717}"),
        }
    }
}

/// A page. It asks for nothing: a browser that would is told not to.
pub fn page(title: &str, head: impl FnOnce(&mut Html), body: impl FnOnce(&mut Html)) -> String {
    let mut html = Html::default();
    html.raw(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    html.leaf("title", &[], title).raw("\n<style>\n").raw(STYLE).raw("</style></head>\n<body>\n");
    html.nest("header", &[], head).raw("\n");
    html.nest("main", &[], body);
    html.raw("\n<footer>ebs-prewarm ").raw(env!("CARGO_PKG_VERSION"));
    html.raw(". This page is whole: it loads nothing.</footer>\n</body></html>\n");
    html.into_string()
}

/// The line on how it went.
pub fn status(html: &mut Html, mood: Mood, text: &str) {
    let (class, sign) = mood.class_and_sign();
    html.open("p", &[("class", class)]);
    html.leaf("span", &[("aria-hidden", "true")], sign).raw(" ").text(text).close("p");
}

/// A part of the page with a heading.
pub fn section(html: &mut Html, id: &'static str, title: &str, inside: impl FnOnce(&mut Html)) {
    html.raw("\n");
    html.nest("section", &[("class", "card"), ("aria-labelledby", id)], |html| {
        html.leaf("h2", &[("id", id)], title);
        inside(html);
    });
}

/// Figures: what, how much, and a remark.
pub fn tiles(html: &mut Html, all: &[(&str, String, String)]) {
    html.open("dl", &[("class", "tiles")]);
    for (name, value, remark) in all {
        html.open("div", &[]).leaf("dt", &[], name).leaf("dd", &[("class", "value")], value);
        html.leaf("dd", &[("class", "soft")], remark).close("div");
    }
    html.close("dl");
}

/// A bar of a list.
#[derive(Debug)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub shown: String,
    pub remarks: Vec<String>,
    pub class: &'static str,
    /// Whether it is the one to look at.
    pub best: bool,
}

/// A list of bars, the longest as wide as the list.
pub fn bars(html: &mut Html, all: &[Bar]) {
    let most = all.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    html.open("ol", &[("class", "bars")]);
    for bar in all {
        html.open("li", &[("class", if bar.best { "best" } else { "" })]);
        html.open("div", &[("class", "bar-head")]).leaf("b", &[], &bar.name);
        if bar.best {
            html.raw("<span class=\"badge\">recommended</span>");
        }
        html.leaf("span", &[("class", "bar-value")], &bar.shown).close("div");
        let width = format!("width:{}%", n(100.0 * bar.value / most));
        html.open("div", &[("class", "bar-track"), ("aria-hidden", "true")]);
        html.leaf("div", &[("class", &format!("bar {}", bar.class)), ("style", &width)], "").close("div");
        html.leaf("p", &[("class", "soft")], &bar.remarks.join(" \u{b7} ")).close("li");
    }
    html.close("ol");
}

/// A list of plain lines.
pub fn lines<'a>(html: &mut Html, class: &'static str, all: impl IntoIterator<Item = &'a String>) {
    html.open("ul", &[("class", class)]);
    for line in all {
        html.leaf("li", &[], line);
    }
    html.close("ul");
}

/// Spans of time, one below the other.
#[derive(Debug)]
pub struct Span {
    pub name: String,
    pub note: String,
    /// `None` where it did not begin.
    pub from_to: Option<(f64, f64)>,
    pub class: &'static str,
}

/// What takes so many times as long as all before it is not shown to its end: of the others nothing would be seen.
const LONG: f64 = 3.0;

/// Where the scale of a timeline ends.
fn end_of(spans: &[Span]) -> f64 {
    let latest =
        |spans: &[Span]| spans.iter().filter_map(|span| span.from_to).map(|(_, to)| to).fold(0.0, f64::max);
    let before = spans.split_last().map_or(0.0, |(_, before)| latest(before));
    let all = latest(spans);
    if before > 0.0 && all > LONG * before { before * 1.5 } else { all }
}

/// When what was under way.
pub fn timeline(html: &mut Html, spans: &[Span]) {
    const EACH: f64 = 38.0;
    let end = end_of(spans);
    let x = Scale { values: (0.0, end), places: (10.0, WIDTH - 10.0) };
    let height = EACH * spans.len() as f64 + 20.0;
    let said: Vec<String> = spans.iter().map(|span| format!("{}: {}", span.name, span.note)).collect();
    svg::chart(html, height, "timeline", &format!("Stages over time. {}.", said.join("; ")), |html| {
        for (at, part) in spans.iter().enumerate() {
            let top = EACH * at as f64;
            svg::label(html, (10.0, top + 13.0), "strong", "start", &part.name);
            let goes_on = part.from_to.is_some_and(|(_, to)| to > end);
            let note = if goes_on { format!("{} \u{2192}", part.note) } else { part.note.clone() };
            svg::label(html, (WIDTH - 10.0, top + 13.0), "", "end", &note);
            svg::line(html, (10.0, top + 26.0), (WIDTH - 10.0, top + 26.0), "grid");
            if let Some((from, to)) = part.from_to {
                let wide = (x.at(to.min(end)) - x.at(from)).max(2.0);
                let (left, y, wide) = (n(x.at(from).min(WIDTH - 12.0)), n(top + 19.0), n(wide));
                let class = format!("fill {}", part.class);
                let attributes = [
                    ("class", &*class),
                    ("x", &left),
                    ("y", &y),
                    ("width", &wide),
                    ("height", "14"),
                    ("rx", "2"),
                ];
                html.void("rect", &attributes);
            }
        }
        svg::label(html, (10.0, height - 4.0), "soft", "start", "0 s");
        svg::label(html, (WIDTH - 10.0, height - 4.0), "soft", "end", &span(end));
    });
}

/// What else there is, and what it costs; the first line is what was measured here.
pub fn prices(html: &mut Html, volume_bytes: u64, ours: &str) {
    section(html, "prices", "What the alternatives cost for this volume", |html| {
        html.raw("<div class=\"prices\">");
        price(html, "ebs-prewarm", "$0", "but for the reads", ours, "measured here", true);
        for other in alternatives(volume_bytes) {
            let takes = match other.takes_s {
                None => "warm from the start".to_string(),
                Some((least, most)) if least == most => format!("{} for the whole volume", span(least)),
                Some((least, most)) => format!("{} to {} for the whole volume", span(least), span(most)),
            };
            let usd = dollars(other.usd);
            let remark = format!("{takes}; {}", other.remark);
            price(html, other.name, &usd, other.per, &remark, other.source, false);
        }
        html.raw("</div>");
    });
}

fn price(html: &mut Html, name: &str, usd: &str, per: &str, remark: &str, source: &str, ours: bool) {
    html.open("div", &[("class", if ours { "price best" } else { "price" })]);
    html.leaf("h3", &[], name).open("p", &[("class", "usd")]).leaf("b", &[], usd).raw(" ").text(per);
    html.close("p").leaf("p", &[], remark).leaf("p", &[("class", "soft")], source).close("div");
}

/// `$540`, `$1.80`, `$0.0072`.
pub fn dollars(usd: f64) -> String {
    match usd {
        whole if whole == whole.trunc() => format!("${whole:.0}"),
        large if large >= 0.1 => format!("${large:.2}"),
        small => format!("${small:.4}"),
    }
}

/// What is of use to few, folded away: names and values.
pub fn details(html: &mut Html, all: &[(&str, String)]) {
    html.raw("\n<details class=\"card\"><summary>Details</summary><dl class=\"details\">");
    for (name, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
        html.leaf("dt", &[], name).leaf("dd", &[], value);
    }
    html.raw("</dl></details>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_what_counts() {
        assert_eq!([540.0, 1.8, 0.0072, 0.0].map(dollars), ["$540", "$1.80", "$0.0072", "$0"]);
    }

    #[test]
    fn the_longest_bar_is_as_wide_as_the_list() {
        let bar = |value| Bar {
            name: "a".into(),
            value,
            shown: String::new(),
            remarks: Vec::new(),
            class: "s0",
            best: false,
        };
        let mut html = Html::default();
        bars(&mut html, &[bar(50.0), bar(200.0), bar(0.0)]);
        let html = html.into_string();
        for width in ["width:25%", "width:100%", "width:0%"] {
            assert!(html.contains(width), "{width}: {html}");
        }
    }

    #[test]
    fn a_page_asks_for_nothing() {
        let page = page("a & b", |_| {}, |html| prices(html, 1 << 30, "x"));
        assert!(page.contains("<title>a &amp; b</title>") && page.contains("default-src 'none'"));
        for asks in ["http://", "https://", "src=", "url(http", "@import", "<script", "<link"] {
            assert!(!page.contains(asks), "{asks}");
        }
    }
}
