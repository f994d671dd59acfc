# Thin names for the real commands.
.PHONY: demo test lint clean

demo:
	cargo run --release --example quickstart

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
	sh scripts/deny.sh

test: lint
	cargo test --workspace --all-features
	sh scripts/vectors.sh
	cargo run --release --example quickstart

clean:
	cargo clean
