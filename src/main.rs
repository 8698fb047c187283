//! arguments -> cli -> exit code.

use std::process::ExitCode;

/// Also librdkafka's, and without huge pages: half the CPU a command, and half the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millrace::cli::main()
}
