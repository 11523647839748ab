//! All cases; one behaviour a file, in `src/cases/`.

fn main() {
    dewar_conformance::main(dewar_conformance::cases::all());
}
