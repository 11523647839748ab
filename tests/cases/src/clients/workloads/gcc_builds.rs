//! gcc compiles, archives and links a program of two files on a volume; it runs with its library shared and linked in.

use std::fs;

use anyhow::{Result, ensure};

use super::Engine;

const LIBRARY: &str = r"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int threads;

static void *count(void *argument)
{
    atomic_fetch_add(&threads, *(int *)argument);
    return argument;
}

/* The sum of 1 to 8, by as many threads. */
int by_threads(void)
{
    pthread_t ids[8];
    int numbers[8];
    for (int i = 0; i < 8; i++) {
        numbers[i] = i + 1;
        if (pthread_create(&ids[i], NULL, count, &numbers[i]) != 0)
            return -1;
    }
    for (int i = 0; i < 8; i++)
        pthread_join(ids[i], NULL);
    return atomic_load(&threads);
}

/* A number that a child leaves in shared memory. */
int by_child(void)
{
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        *shared = 6;
        _exit(0);
    }
    return waitpid(child, NULL, 0) == child ? *shared : -1;
}
";

const PROGRAM: &str = r#"
#include <stdio.h>

int by_threads(void);
int by_child(void);

int main(void)
{
    int threads = by_threads();
    printf("%d\n", threads + by_child());
    return 0;
}
"#;

const SCRIPT: &str = r"
set -e
cd /work
gcc -O2 -Wall -Werror -pthread -fPIC -c library.c
ar rcs libcounts.a library.o
gcc -shared -pthread -o libcounts.so library.o
gcc -O2 -Wall -Werror -o shared program.c -L. -lcounts -Wl,-rpath,/work
gcc -O2 -Wall -Werror -static -pthread -o static program.c libcounts.a
./shared
./static
";

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("library.c"), LIBRARY)?;
    fs::write(dir.path().join("program.c"), PROGRAM)?;
    let told = podman.sh(&["-v", &format!("{}:/work", dir.path().display())], SCRIPT)?;
    ensure!(told == "42\n42", "{told}");
    let built = fs::read(dir.path().join("static"))?;
    ensure!(built.starts_with(b"\x7fELF"), "what was built is not there");
    Ok(())
}
