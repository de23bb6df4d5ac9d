//! Seeded mutations: the same seed gives the same inputs, so that what a test run finds can be found again.

/// Inputs longer than this are cut: what is to be found is found in short ones.
const LONGEST: usize = 4096;

/// Makes new inputs from old ones.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// One that always makes the same inputs.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number (SplitMix64, which has no bad seeds).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64).max(1)) as usize
    }

    /// A piece of an input: where it begins and ends.
    fn piece(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.below(bytes.len() + 1);
        let length = self.below((bytes.len() - start).min(32) + 1);
        (start, start + length)
    }

    /// A new input, one to four changes away from one of `inputs`.
    pub fn input(&mut self, inputs: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut bytes = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, inputs, words);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>], words: &[&str]) {
        let (start, end) = self.piece(bytes);
        match self.below(8) {
            0 => drop(bytes.drain(start..end)),
            1 => {
                let copy = bytes[start..end].to_vec();
                let at = self.below(bytes.len() + 1);
                drop(bytes.splice(at..at, copy));
            }
            2 => {
                if let Some(byte) = bytes.get_mut(start) {
                    *byte ^= 1 << (self.next() % 8);
                }
            }
            3 => {
                if let Some(byte) = bytes.get_mut(start) {
                    const INTERESTING: &[u8] = b"\x00\x01\x7f\x80\xff\"\\{}[]:,;=.-0 \n";
                    *byte = INTERESTING[(self.next() % INTERESTING.len() as u64) as usize];
                }
            }
            4 => bytes.truncate(start),
            5 => {
                let word = words.get(self.below(words.len())).copied().unwrap_or_default();
                drop(bytes.splice(start..end, word.bytes()));
            }
            6 => {
                let byte = self.next() as u8;
                bytes.insert(start, byte);
            }
            // Another input's end, or a piece of it.
            _ => {
                let other = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
                let (from, to) = self.piece(&other);
                drop(bytes.splice(start..end, other[from..to].iter().copied()));
            }
        }
    }
}
