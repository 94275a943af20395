//! Pictures as SVG text. Colours come from the page's style by class, so that one picture serves light and dark.

use std::fmt::Write;

/// A place in a picture, in pixels from its upper left corner.
pub type Place = (f64, f64);

/// Where a text stands relative to its place.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A picture that is being drawn.
#[derive(Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty one; the page scales it to its column.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// The finished text. `title` is what somebody hears who cannot see it.
    pub fn finish(self, title: &str) -> String {
        let Self { width, height, body } = self;
        let title = escaped(title);
        format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">{body}</svg>")
    }

    /// Draws everything that `draw` draws with the colour of `class`.
    pub fn colored(&mut self, class: &str, draw: impl FnOnce(&mut Self)) {
        self.add(&format!("<g class=\"{class}\">"));
        draw(self);
        self.add("</g>");
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, (x1, y1): Place, (x2, y2): Place) {
        self.add(&format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    /// Straight lines from place to place.
    pub fn path(&mut self, class: &str, places: &[Place]) {
        let points = places.iter().fold(String::new(), |mut text, (x, y)| {
            write!(text, "{x:.1},{y:.1} ").expect("writing to a string cannot fail");
            text
        });
        self.add(&format!("<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end()));
    }

    /// A filled rectangle; `title` is shown when it is pointed at.
    pub fn bar(&mut self, class: &str, (x, y): Place, (width, height): (f64, f64), title: &str) {
        self.add(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{}</title></rect>",
            escaped(title)
        ));
    }

    /// A text on one line.
    pub fn text(&mut self, class: &str, (x, y): Place, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ));
    }

    /// One of six marks that differ in shape, for those who do not see colours.
    pub fn mark(&mut self, kind: usize, place: Place, title: &str) {
        self.add(&format!(
            "<path class=\"mark\" d=\"{}\"><title>{}</title></path>",
            outline(kind, place),
            escaped(title)
        ));
    }

    fn add(&mut self, text: &str) {
        self.body.push_str(text);
    }
}

/// The outline of a mark.
pub fn outline(kind: usize, (x, y): Place) -> String {
    let corners = |corners: &[(f64, f64)]| {
        let mut text = String::new();
        for (dx, dy) in corners {
            let word = if text.is_empty() { 'M' } else { 'L' };
            write!(text, "{word}{:.1} {:.1}", x + dx, y + dy).expect("writing to a string cannot fail");
        }
        text + "Z"
    };
    match kind % 6 {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z", x - 4.0),
        1 => corners(&[(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)]),
        2 => corners(&[(0.0, -4.5), (4.5, 3.5), (-4.5, 3.5)]),
        3 => corners(&[(0.0, -5.0), (5.0, 0.0), (0.0, 5.0), (-5.0, 0.0)]),
        4 => corners(&[(0.0, 4.5), (4.5, -3.5), (-4.5, -3.5)]),
        _ => corners(&[
            (-1.5, -4.5),
            (1.5, -4.5),
            (1.5, -1.5),
            (4.5, -1.5),
            (4.5, 1.5),
            (1.5, 1.5),
            (1.5, 4.5),
            (-1.5, 4.5),
            (-1.5, 1.5),
            (-4.5, 1.5),
            (-4.5, -1.5),
            (-1.5, -1.5),
        ]),
    }
}

/// As text of a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_become_markup() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("label", (1.0, 2.0), Anchor::End, "<b>&\"");

        let text = svg.finish("a < b");

        assert!(text.contains("&lt;b&gt;&amp;&quot;") && text.contains("a &lt; b"), "{text}");
    }
}
