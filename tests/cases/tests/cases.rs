//! All cases; one behaviour a file, in `src/cases/`.

fn main() {
    dewar_cases::main(dewar_cases::cases::all(), None);
}
