//! Names for containers that were given none: an adjective and the surname of somebody who worked with the cold, with
//! vacuum, or with computers.

use crate::control::fill_random;

const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "arctic", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cool",
    "crisp", "daring", "deft", "eager", "early", "earnest", "fair", "fleet", "frosty", "gentle", "glad", "golden",
    "grand", "happy", "hardy", "honest", "humble", "icy", "jolly", "keen", "kind", "lively", "loyal", "lucid",
    "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "polar", "proud", "quick",
    "quiet", "sealed", "serene", "sharp", "silver", "snug", "solid", "steady", "stoic", "sunny", "swift", "tidy",
    "vivid", "warm", "wise", "witty",
];

const SURNAMES: [&str; 64] = [
    "allen",
    "amdahl",
    "anning",
    "babbage",
    "backus",
    "bardeen",
    "boyle",
    "cailletet",
    "carnot",
    "cayley",
    "celsius",
    "clausius",
    "codd",
    "conway",
    "curie",
    "dewar",
    "dijkstra",
    "engelbart",
    "euler",
    "faraday",
    "fermi",
    "floyd",
    "franklin",
    "galois",
    "germain",
    "gibbs",
    "goldberg",
    "goldstine",
    "hamilton",
    "hamming",
    "hoare",
    "hopper",
    "joule",
    "kapitsa",
    "kelvin",
    "kilburn",
    "kleene",
    "knuth",
    "lamarr",
    "lamport",
    "landau",
    "leibniz",
    "linde",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "napier",
    "nernst",
    "noether",
    "onnes",
    "pascal",
    "perlman",
    "popek",
    "ramsay",
    "ritchie",
    "shannon",
    "sutherland",
    "torricelli",
    "turing",
    "wilkes",
    "wilkins",
    "zuse",
];

/// A random name such as `frosty_dewar`. May be taken: try again.
#[must_use]
pub fn random_name() -> String {
    let mut random = [0; 2];
    fill_random(&mut random);
    let pick = |words: &[&'static str; 64], byte: u8| words[usize::from(byte % 64)];
    format!("{}_{}", pick(&ADJECTIVES, random[0]), pick(&SURNAMES, random[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    #[test]
    fn every_generated_name_is_a_valid_one_and_no_word_is_there_twice() {
        for words in [ADJECTIVES, SURNAMES] {
            assert!(words.is_sorted_by(|a, b| a < b));
        }
        for _ in 0..100 {
            let name = random_name();
            assert!(parse::container_name(&name).is_ok(), "{name}");
        }
    }
}
