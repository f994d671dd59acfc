# Thin names for the real commands.
.PHONY: demo test lint bench clean

demo:
	cargo run --release --example quickstart

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo clippy -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
	sh scripts/deny.sh
	sh scripts/python.sh

# The tests come last, so that what they say stands at the end.
test: lint
	sh scripts/vectors.sh
	cargo build --release -p backup-cli
	BACKUP_BINARY="$${CARGO_TARGET_DIR:-target}/release/backup" sh scripts/reference.sh
	cargo run --release --example quickstart
	cargo run --release --example dump
	sh scripts/test.sh

# What the engine does on generated inputs, and beside other programs that are on PATH. See docs/performance.md.
bench:
	cargo build --release -p backup-cli -p backup-bench
	cargo run --release -p backup-bench -- primitives
	cargo run --release -p backup-bench -- engine
	cargo run --release -p backup-bench -- compare
	cargo run --release -p backup-bench -- index

clean:
	cargo clean
