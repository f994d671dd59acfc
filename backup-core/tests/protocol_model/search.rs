//! Breadth-first search through every state that a model can reach. What it finds first is a shortest way there.

use std::fmt::Debug;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use hashbrown::HashTable;

/// Something that takes steps.
pub(crate) trait Model {
    type State: Copy + Eq + Hash + Debug;
    type Action: Copy + Debug;

    fn initial(&self) -> Self::State;

    /// Every step that can be taken from here. What could happen at the same time comes in both orders.
    fn steps(&self, state: &Self::State, take: &mut dyn FnMut(Self::Action, Self::State));

    /// One state for all those that differ only in the names of equals.
    fn representative(&self, state: Self::State) -> Self::State;

    /// The rule that a state breaks.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// What a search found.
pub(crate) enum Found<M: Model> {
    /// Every state that can be reached keeps every rule.
    Safe(Size),
    /// A state that breaks a rule, and the steps that lead there.
    Broken { rule: &'static str, steps: Vec<M::Action>, last: M::State, size: Size },
    /// More states than were allowed; those that were looked at keep every rule.
    TooLarge(Size),
}

/// How much was searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) states: usize,
    /// Steps of the longest of all shortest ways.
    pub(crate) depth: usize,
    /// Steps that were tried.
    pub(crate) steps: u64,
}

/// Fast and good enough for states that are small: two multiplications a word.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
}

/// Searches all states, or until `most` of them are known.
pub(crate) fn search<M: Model>(model: &M, most: usize) -> Found<M> {
    let hasher = BuildHasherDefault::<Mixer>::default();
    let mut states = vec![model.representative(model.initial())];
    let mut parents = vec![0_u32];
    let mut known = HashTable::new();
    known.insert_unique(hasher.hash_one(states[0]), 0_u32, |_| 0);
    let mut size = Size { states: 1, depth: 0, steps: 0 };
    let (mut at, mut end_of_level) = (0, 1);
    while at < states.len() {
        if at == end_of_level {
            (size.depth, end_of_level) = (size.depth + 1, states.len());
        }
        let state = states[at];
        if let Some(rule) = model.broken(&state) {
            let steps = steps_to(model, &states, &parents, at);
            return Found::Broken { rule, steps, last: state, size };
        }
        if states.len() > most {
            return Found::TooLarge(size);
        }
        model.steps(&state, &mut |_, next| {
            size.steps += 1;
            let next = model.representative(next);
            let hash = hasher.hash_one(next);
            if known.find(hash, |number| states[*number as usize] == next).is_none() {
                let number = u32::try_from(states.len()).expect("fewer states than 2^32");
                known.insert_unique(hash, number, |number| hasher.hash_one(states[*number as usize]));
                states.push(next);
                parents.push(u32::try_from(at).expect("fewer states than 2^32"));
            }
        });
        size.states = states.len();
        at += 1;
    }
    Found::Safe(size)
}

fn steps_to<M: Model>(model: &M, states: &[M::State], parents: &[u32], mut at: usize) -> Vec<M::Action> {
    let mut steps = Vec::new();
    while at != 0 {
        let parent = parents[at] as usize;
        let mut taken = None;
        model.steps(&states[parent], &mut |action, next| {
            if model.representative(next) == states[at] {
                taken.get_or_insert(action);
            }
        });
        steps.extend(taken);
        at = parent;
    }
    steps.reverse();
    steps
}
