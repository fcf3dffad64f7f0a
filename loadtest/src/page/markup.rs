//! Markup that cannot be ill-formed by what is put into it: text is escaped, every element is closed.

use std::fmt::Write;

/// Text as an element's content or an attribute's value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            character => out.push(character),
        }
    }
    out
}

/// What is inside an SVG.
#[derive(Debug, Default)]
pub struct Drawing {
    pub width: f64,
    pub height: f64,
    body: String,
}

/// Where a text is tied to its point.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Drawing {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.body.write_fmt(arguments).expect("a string takes what is written to it");
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    /// A rectangle; `about` is said where a pointer rests on it.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), about: &str) {
        let about = escape(about);
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\">\
             <title>{about}</title></rect>"
        ));
    }

    pub fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let mut data = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            write!(data, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" }).expect("a string takes it");
        }
        if closed {
            data.push('Z');
        }
        self.put(format_args!("<path class=\"{class}\" d=\"{data}\"/>"));
    }

    /// Another drawing at a place in this one.
    pub fn place(&mut self, (x, y): (f64, f64), other: &Self) {
        self.put(format_args!("<g transform=\"translate({x:.1} {y:.1})\">{}</g>", other.body));
    }

    /// For a page that has the styles.
    pub fn inline(&self, name: &str) -> String {
        let (width, height, name) = (self.width, self.height, escape(name));
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">{}</svg>",
            self.body
        )
    }

    /// A file of its own, in light and dark.
    pub fn standalone(&self, name: &str, css: &str) -> String {
        let (width, height, name) = (self.width, self.height, escape(name));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">\n<style>{css}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" style=\"fill:var(--surface)\"/>{}</svg>\n",
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_its_element_or_attribute() {
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
        let mut drawing = Drawing::new(10.0, 10.0);
        drawing.text("t", (1.0, 2.0), Anchor::Start, "</svg>");
        assert!(!drawing.inline("x").contains("</svg></text>"));
    }
}
