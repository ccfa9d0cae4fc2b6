# Short ways to what is done often. CI calls the same recipes.

# Everything that must pass before a change lands.
default: lint test

# Formatting, lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test; RUNS and KILLS make the random ones longer.
test *args:
    cargo test --workspace {{args}}

# The example pipeline on the embedded defaults.
run *args:
    cargo run --release --bin cornjacket -- run pipelines/iot.yaml {{args}}

# Renew the golden files after looking at what changed.
golden:
    UPDATE_GOLDEN=1 cargo test --workspace

# Benchmarks against their floors: all, or those that are named. Build first, so that both programs are of the same state.
bench *names='all':
    cargo build --release -p cornjacket -p bench --bins
    cargo run --release -p bench -- {{names}}

# The plots of docs/performance.md; memory is watched for so many minutes.
plots minutes='60':
    cargo build --release -p cornjacket -p bench --bins
    cargo run --release -p bench -- --plots docs/plots --minutes {{minutes}}

# A flame graph of a benchmark, engine and floors, in flamegraph.svg (perf, and `cargo install inferno`).
flamegraph name='tumble-1k':
    cargo build --release -p cornjacket -p bench --bins
    perf record --freq 499 --call-graph dwarf,16384 --output perf.data target/release/bench {{name}} --runs 3
    perf script --no-inline --input perf.data | inferno-collapse-perf | inferno-flamegraph --title {{name}} > flamegraph.svg

# A flame graph of a process that runs, under whatever load it is: just flamegraph-of $(pgrep -o cornjacket).
flamegraph-of pid seconds='20':
    perf record --freq 499 --call-graph dwarf,16384 --output perf.data --pid {{pid}} -- sleep {{seconds}}
    perf script --no-inline --input perf.data | inferno-collapse-perf | inferno-flamegraph > flamegraph.svg

# A long night of crashes: thousands of simulated ones, hundreds of real ones.
crashes:
    RUNS=20000 cargo test --release -p cornjacket-tests crash
    KILLS=300 cargo test --release -p cornjacket --test end_to_end -- kill whatever_breaks

format:
    cargo fmt --all
