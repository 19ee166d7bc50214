//! Mutations of seeds: the same ones for the same number.

/// Numbers that sizes and counts go wrong at.
const NUMBERS: [u64; 12] = [
    0,
    1,
    7,
    255,
    65_535,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];
/// Words that texts go wrong at.
const WORDS: [&str; 16] = [
    "[[task]]",
    "[",
    "]",
    "\"",
    "'''",
    "=",
    "\n",
    "9e999",
    "-1",
    "nan",
    "18446744073709551616",
    "\u{0}",
    "{\"a\":",
    "null",
    "\\u0000",
    "# x",
];

/// A sequence of numbers (`SplitMix64`, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `n`; 0 where there is none.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.draw() % n as u64) as usize }
    }
}

/// Changes one of `seeds`, once to six times.
#[must_use]
pub fn mutated(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(6) {
        once(&mut bytes, seeds, numbers);
    }
    bytes
}

fn once(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let len = bytes.len();
    let at = numbers.below(len + 1);
    let end = at + numbers.below((len - at).min(64) + 1);
    match numbers.below(9) {
        0 if at < len => bytes[at] ^= 1 << numbers.below(8),
        1 if at < len => bytes[at] = numbers.draw() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        5 | 6 => {
            let number = NUMBERS[numbers.below(NUMBERS.len())].to_le_bytes();
            let width = [1, 4, 8][numbers.below(3)].min(len - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        7 => {
            let word = WORDS[numbers.below(WORDS.len())].bytes();
            bytes.splice(at..end, word);
        }
        _ => {
            let other = &seeds[numbers.below(seeds.len())];
            let from = numbers.below(other.len() + 1);
            let to = from + numbers.below((other.len() - from).min(128) + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
    }
}
