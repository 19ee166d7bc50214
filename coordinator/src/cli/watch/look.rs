//! Colours that the colour-blind can tell apart, as many as the terminal has. Nothing is said by colour alone.

use ratatui::style::{Color, Modifier, Style};

/// How many colours there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// None, or none is wanted.
    Mono,
    /// The terminal's own sixteen.
    Sixteen,
    /// The cube of 256.
    Indexed,
    /// Any.
    True,
}

/// How things look on this terminal.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours.
    pub depth: Depth,
    /// Whether its font has Braille, which curves are drawn with.
    pub braille: bool,
}

/// Orange: what hurts, and what is wrong.
const ORANGE: [u8; 3] = [255, 176, 0];
/// Blue: what helps, and where one is.
const BLUE: [u8; 3] = [100, 143, 255];
/// No effect.
const NEUTRAL: [u8; 3] = [56, 56, 56];
/// Curves, in their order: orange, sky blue, bluish green, vermilion, reddish purple (Okabe and Ito).
const CURVES: [[u8; 3]; 5] = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [213, 94, 0], [204, 121, 167]];

impl Look {
    /// Of this process's terminal, by what its environment says.
    pub fn of(env: impl Fn(&str) -> Option<String>) -> Self {
        let has = |name: &str| env(name).filter(|v| !v.is_empty());
        let term = has("TERM").unwrap_or_default();
        let depth = if has("NO_COLOR").is_some() || ["vt100", "vt220"].contains(&term.as_str()) {
            Depth::Mono
        } else if has("COLORTERM").is_some_and(|v| v == "truecolor" || v == "24bit") {
            Depth::True
        } else if term.contains("256") || term.contains("direct") {
            Depth::Indexed
        } else {
            Depth::Sixteen
        };
        Self { depth, braille: term != "linux" }
    }

    fn color(self, rgb: [u8; 3], named: Color) -> Option<Color> {
        match self.depth {
            Depth::Mono => None,
            Depth::Sixteen => Some(named),
            Depth::Indexed => Some(Color::Indexed(nearest(rgb))),
            Depth::True => Some(Color::Rgb(rgb[0], rgb[1], rgb[2])),
        }
    }

    fn with(self, rgb: [u8; 3], named: Color) -> Style {
        self.color(rgb, named).map_or_else(Style::new, |c| Style::new().fg(c))
    }

    /// Titles, and what is chosen.
    pub fn accent(self) -> Style {
        self.with(BLUE, Color::LightBlue).add_modifier(Modifier::BOLD)
    }

    /// What is wrong.
    pub fn alarm(self) -> Style {
        self.with(ORANGE, Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The bars of progress.
    pub fn bar(self) -> Style {
        self.with(BLUE, Color::LightBlue)
    }

    /// What is under the cursor.
    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of an experiment's state.
    pub fn of_state(self, state: &str) -> Style {
        match state {
            "failed" | "cancelled" | "paused" => self.alarm(),
            "running" => self.accent(),
            _ => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// Of an experiment in a list.
    pub fn of_row(self, state: &str) -> Style {
        if state == "done" { Style::new() } else { self.of_state(state) }
    }

    /// Of the curve that is drawn as the n-th.
    pub fn curve(self, n: usize) -> Style {
        let named = [Color::Yellow, Color::LightCyan, Color::Green, Color::LightRed, Color::LightMagenta];
        let n = n % CURVES.len();
        self.with(CURVES[n], named[n])
    }

    /// Whether effects are told apart by the colour of the ground.
    pub fn fills(self) -> bool {
        matches!(self.depth, Depth::Indexed | Depth::True)
    }

    /// Of an effect, from −1 (helps) to 1 (hurts): a ground with what can be read on it where there are colours enough, else a
    /// colour of the text.
    pub fn effect(self, share: f64) -> Style {
        if share.is_nan() {
            return self.alarm();
        }
        let end = if share < 0.0 { BLUE } else { ORANGE };
        if !self.fills() {
            let named = if share < 0.0 { Color::LightBlue } else { Color::Yellow };
            return if share == 0.0 { Style::new() } else { self.with(end, named) };
        }
        let t = share.abs().min(1.0);
        let mut ground = [0; 3];
        for ((g, &n), &e) in ground.iter_mut().zip(&NEUTRAL).zip(&end) {
            *g = (f64::from(n) + (f64::from(e) - f64::from(n)) * t).round() as u8;
        }
        let text = if luminance(ground) > 0.18 { [0, 0, 0] } else { [255, 255, 255] };
        let color = |rgb| self.color(rgb, Color::Reset).unwrap_or(Color::Reset);
        Style::new().bg(color(ground)).fg(color(text))
    }
}

/// Relative luminance, from 0 to 1.
fn luminance(rgb: [u8; 3]) -> f64 {
    let linear = rgb.map(|c| (f64::from(c) / 255.0).powf(2.2));
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

/// The nearest colour of the 6 × 6 × 6 cube, or of the greys, of 256.
fn nearest(rgb: [u8; 3]) -> u8 {
    const LEVELS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let distance = |a: [i32; 3]| -> i32 { (0..3).map(|i| (a[i] - i32::from(rgb[i])).pow(2)).sum() };
    let cube = (0..216u8).map(|n| {
        let at = [n / 36, n / 6 % 6, n % 6].map(|i| LEVELS[usize::from(i)]);
        (distance(at), 16 + n)
    });
    let greys = (0..24u8).map(|n| (distance([8 + 10 * i32::from(n); 3]), 232 + n));
    cube.chain(greys).min().map_or(0, |best| best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(vars: &[(&str, &str)]) -> Look {
        Look::of(|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
    }

    #[test]
    fn colours_are_those_that_the_terminal_has_and_the_user_wants() {
        assert_eq!(look(&[("TERM", "xterm"), ("COLORTERM", "truecolor")]).depth, Depth::True);
        assert_eq!(look(&[("TERM", "xterm-256color")]).depth, Depth::Indexed);
        assert_eq!(look(&[("TERM", "linux")]).depth, Depth::Sixteen);
        assert!(!look(&[("TERM", "linux")]).braille);
        let none = look(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("NO_COLOR", "1")]);
        assert_eq!(none.depth, Depth::Mono);
        // By the convention an empty one doesn't count.
        assert_eq!(look(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]).depth, Depth::Indexed);
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let mono = look(&[("NO_COLOR", "1")]);
        let all = [mono.accent(), mono.alarm(), mono.dim(), mono.bar(), mono.cursor(), mono.curve(3)];
        let effects = [-1.0, -0.1, 0.0, 0.5, f64::NAN].map(|v| mono.effect(v));
        for style in all.iter().chain(&effects) {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }

    /// What an eye without red, green or blue cones sees of a colour (Viénot's and Brettel's matrices in linear RGB,
    /// rounded).
    fn seen(rgb: [u8; 3], m: [[f64; 3]; 3]) -> [f64; 3] {
        let linear = rgb.map(|c| (f64::from(c) / 255.0).powf(2.2));
        m.map(|row| (0..3).map(|i| row[i] * linear[i]).sum::<f64>().clamp(0.0, 1.0).powf(1.0 / 2.2))
    }

    #[test]
    fn effects_that_hurt_and_that_help_differ_to_every_eye_and_can_be_read_upon() {
        let protan = [[0.109, 0.891, 0.0], [0.109, 0.891, 0.0], [0.004, -0.004, 1.0]];
        let deutan = [[0.294, 0.706, 0.0], [0.294, 0.706, 0.0], [-0.021, 0.021, 1.0]];
        let tritan = [[1.0, 0.147, -0.147], [0.0, 0.861, 0.139], [0.0, 0.861, 0.139]];
        let look = look(&[("COLORTERM", "truecolor")]);
        let ground = |v: f64| match look.effect(v).bg {
            Some(Color::Rgb(r, g, b)) => [r, g, b],
            other => panic!("{other:?}"),
        };
        for m in [protan, deutan, tritan] {
            for (a, b) in [(-1.0, 1.0), (-1.0, 0.0), (0.0, 1.0), (-0.5, 0.5)] {
                let (a, b) = (seen(ground(a), m), seen(ground(b), m));
                let apart = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
                assert!(apart > 0.2, "{apart}");
            }
        }
        for step in -10..=10 {
            let share = f64::from(step) / 10.0;
            let text = match look.effect(share).fg {
                Some(Color::Rgb(0, ..)) => 0.0,
                _ => 1.0,
            };
            let (light, ground) = (text, luminance(ground(share)));
            let (high, low) = if light > ground { (light, ground) } else { (ground, light) };
            assert!((high + 0.05) / (low + 0.05) > 4.5, "{share}");
        }
    }
}
