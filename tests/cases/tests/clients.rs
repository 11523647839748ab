//! All cases of clients; one behaviour a file, in `src/clients/`.

fn main() {
    dewar_cases::main(dewar_cases::clients::all(), Some(1));
}
