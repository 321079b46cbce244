//! A flame graph: each function is as wide as its share of the samples, with its callees above it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::stacks::Stacks;

/// The picture's width, in pixels.
const WIDTH: f64 = 1_200.0;

/// The height of one function, in pixels.
const ROW: f64 = 16.0;

/// The margin around the picture, in pixels.
const MARGIN: f64 = 10.0;

/// The height of the title, in pixels.
const TITLE: f64 = 30.0;

/// Narrower functions are left out, in pixels.
const NARROWEST: f64 = 0.6;

/// The width of a letter, in pixels, at the font size in use.
const LETTER: f64 = 6.6;

/// A function at one place of the graph.
#[derive(Debug, Default)]
struct Function {
    count: u64,
    callees: BTreeMap<String, Function>,
}

/// One box of the picture.
#[derive(Clone, Debug, PartialEq)]
struct Tile {
    x: f64,
    width: f64,
    depth: usize,
    name: String,
    count: u64,
}

impl Stacks {
    /// Draws the picture as SVG.
    pub(super) fn flame(&self, title: &str) -> String {
        let root = Function::over(self);
        let mut tiles = Vec::new();
        let scale = (WIDTH - 2.0 * MARGIN) / float(root.count.max(1));
        lay(&root, MARGIN, 0, scale, &mut tiles);
        draw(title, &tiles, self.total())
    }
}

impl Function {
    /// All stacks as one tree, below a root without a name.
    fn over(stacks: &Stacks) -> Self {
        let mut root = Self::default();
        for (frames, count) in &stacks.counts {
            root.count += count;
            let mut at = &mut root;
            for frame in frames {
                at = at.callees.entry(frame.clone()).or_default();
                at.count += count;
            }
        }
        root
    }
}

/// Lays a function's callees side by side, and their callees above them.
fn lay(function: &Function, x: f64, depth: usize, scale: f64, tiles: &mut Vec<Tile>) {
    let mut x = x;
    for (name, callee) in &function.callees {
        let width = float(callee.count) * scale;
        if NARROWEST <= width {
            tiles.push(Tile { x, width, depth, name: name.clone(), count: callee.count });
            lay(callee, x, depth + 1, scale, tiles);
        }
        x += width;
    }
}

fn draw(title: &str, tiles: &[Tile], total: u64) -> String {
    let rows = tiles.iter().map(|tile| tile.depth + 1).max().unwrap_or(0);
    let height = TITLE + 2.0 * MARGIN + ROW * float(rows as u64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fffdf8\"/>\n\
         <text x=\"{MARGIN}\" y=\"22\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for Tile { x, width, depth, name, count } in tiles {
        let y = height - MARGIN - ROW * float(*depth as u64 + 1);
        let share = 100.0 * float(*count) / float(total.max(1));
        // Writing into a string cannot fail, here and below.
        let _ = writeln!(
            svg,
            "<g><title>{} ({share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"{:.1}\" rx=\"1\" fill=\"{}\"/>{}</g>",
            escape(name),
            ROW - 1.0,
            colour(name),
            label(name, *x, y, *width)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// As much of the name as fits.
fn label(name: &str, x: f64, y: f64, width: f64) -> String {
    let room = ((width - 4.0) / LETTER).max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 200 letters")]
    let room = room as usize;
    if room < 4 {
        return String::new();
    }
    let mut text: String = name.chars().take(room).collect();
    if text.len() < name.len() {
        text = text.chars().take(room - 1).chain(['…']).collect();
    }
    format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 2.0, y + 11.5, escape(&text))
}

/// Blue for the kernel, green for our crates, warm colours for others, shaded by crate.
fn colour(name: &str) -> String {
    const OURS: [&str; 6] = ["ledger", "wire", "order", "catalog", "frontend", "oppidum"];
    let place = name.trim_start_matches(['<', '&']);
    let first = place.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next();
    let first = first.unwrap_or_default();
    let shade = first.bytes().fold(7_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 997) % 20;
    match (name.contains("::"), OURS.contains(&first)) {
        (true, true) => format!("hsl({},45%,{}%)", 120 + shade, 66 + shade / 4),
        (true, false) => format!("hsl({},75%,{}%)", 20 + shade, 70 + shade / 4),
        (false, _) => format!("hsl({},45%,{}%)", 205 + shade, 74 + shade / 4),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "a profile has far fewer than 2^52 samples")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks() -> Stacks {
        let counts = [("a;b;c", 3), ("a;b", 1), ("a;d<&>", 4)];
        let split = |stack: &str| stack.split(';').map(str::to_owned).collect();
        Stacks { counts: counts.map(|(stack, count)| (split(stack), count)).into() }
    }

    #[test]
    fn a_function_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let mut tiles = Vec::new();
        lay(&Function::over(&stacks()), 0.0, 0, 1.0, &mut tiles);
        let find = |name: &str| tiles.iter().find(|tile| tile.name == name).expect("a tile");
        let (a, b, c, d) = (find("a"), find("b"), find("c"), find("d<&>"));
        assert_eq!([a, b, c, d].map(|tile| tile.depth), [0, 1, 2, 1]);
        let near = |x: f64, y: f64| (x - y).abs() < 1e-9;
        assert!(near(a.width, 8.0) && near(b.width, 4.0) && near(c.width, 3.0));
        assert!(near(d.x, b.x + b.width) && near(c.x, b.x), "{tiles:?}");
    }

    #[test]
    fn names_cannot_break_the_picture() {
        let svg = stacks().flame("a <title> & more");
        assert!(svg.contains("a &lt;title&gt; &amp; more") && svg.contains("d&lt;&amp;&gt;"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert!(svg.ends_with("</svg>\n"));
    }
}
