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

# A long night of crashes: thousands of simulated ones, hundreds of real ones.
crashes:
    RUNS=20000 KILLS=300 cargo test --release -p cornjacket-tests crash

format:
    cargo fmt --all
