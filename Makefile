# Every target runs from a fresh clone; `make demo` and `make test` install what they need (as root or with sudo).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# The wrapper is started for every compile: static and at a fixed address it starts in half the time.
WRAPPER_FLAGS := -C target-feature=+crt-static -C relocation-model=static -C panic=abort
# Preloaded into compilers, so it must need no other library. What is preloaded is the same in every build.
RECORDER_FLAGS := -C panic=abort -C opt-level=3 -C debuginfo=0 -C strip=symbols -C link-arg=-nostdlib

.PHONY: help demo test real fault-run board board-test lint bench fuzz install uninstall deb release debug packages tools advisories fmt clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: packages release ## coordinator, two agents and a C and a Rust project on this machine, compared with a local build
	packaging/demo/demo "$(TARGET_DIR)/release"

test: packages tools lint debug ## everything that CI runs
	packaging/test "$(TARGET_DIR)/debug"

lint: tools ## formatting, clippy, documentation, dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked
	PATH="$(TARGET_DIR)/tools/bin:$$PATH" cargo-deny --locked --all-features check bans licenses sources

advisories: tools ## dependencies against the advisory database (needs the network)
	PATH="$(TARGET_DIR)/tools/bin:$$PATH" cargo-deny --locked --all-features check advisories

bench: packages release ## figures beside ccache, sccache, distcc, icecc and Rust's caches; informs, never decides (as root)
	tests/bench/c --sources "$(TARGET_DIR)/real-sources" "$(TARGET_DIR)/release"
	tests/bench/rust --sources "$(TARGET_DIR)/real-crates" "$(TARGET_DIR)/release"

fuzz: ## decoders of foreign bytes under a hundred times as many changed bytes as in test
	BUILDBEE_FUZZ_ROUNDS=100 $(CARGO) test --locked -p buildbee-tests --test decoders -- --nocapture

real: packages release ## real projects built in all ways, every file compared; for a night, not part of test
	tests/real/build-tools "$(TARGET_DIR)/release"
	tests/real/run --sources "$(TARGET_DIR)/real-sources" "$(TARGET_DIR)/release"
	tests/real/rust --ways "cold cached second" --sources "$(TARGET_DIR)/real-crates" "$(TARGET_DIR)/release"
	[ "$$(id -u)" -ne 0 ] || tests/real/as-nobody --sources "$(TARGET_DIR)/real-sources" "$(TARGET_DIR)/release"

# SEED= repeats a schedule; MINUTES= (20) and ACTIONS= (2000) end the run, whichever comes first.
fault-run: packages debug ## random faults while real builds run in a loop: every build green, every file compared, nothing left behind
	sources="$(TARGET_DIR)/real-sources"; packaging/sources "$$sources" zlib=zlib lzip=lzip || sources=""; \
	BUILDBEE_FAULT_SOURCES="$$sources" BUILDBEE_FAULT_SEED="$(SEED)" BUILDBEE_FAULT_MINUTES="$(MINUTES)" BUILDBEE_FAULT_ACTIONS="$(ACTIONS)" \
	  BUILDBEE_TEST_PROGRAMS="$(TARGET_DIR)/debug" \
	  $(CARGO) test --locked -p buildbee-tests --test fault -- --ignored --exact run::a_long_one --nocapture

# The linker and C compiler of Debian's cross packages; other places by these same variables.
board: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc
board: export CC_aarch64_unknown_linux_gnu ?= aarch64-linux-gnu-gcc
board: export AR_aarch64_unknown_linux_gnu ?= aarch64-linux-gnu-ar
board: ## the client for an ARM board, in target/aarch64-unknown-linux-gnu/release (needs gcc-aarch64-linux-gnu)
	$(CARGO) build --release --locked --target aarch64-unknown-linux-gnu -p buildbee --bins
	$(CARGO) rustc --release --locked --target aarch64-unknown-linux-gnu -p buildbee --bin buildbee -- $(WRAPPER_FLAGS)
	$(CARGO) rustc --release --locked --target aarch64-unknown-linux-gnu -p buildbee-recorder --lib -- $(RECORDER_FLAGS)

board-test: board release ## an emulated ARM board with two desktops: every file compared (as root; skipped where packages are missing)
	tests/real/board "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release" "$(TARGET_DIR)/release"
	tests/real/board --suite bookworm "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release" "$(TARGET_DIR)/release"
	tests/real/board-rust "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release" "$(TARGET_DIR)/release"
	tests/real/board-refusals "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release" "$(TARGET_DIR)/release"
	tests/real/board-shared "$(TARGET_DIR)/aarch64-unknown-linux-gnu/release" "$(TARGET_DIR)/release"

release: ## the programs that users run, in target/release
	$(CARGO) build --release --locked --bins
	$(CARGO) rustc --release --locked -p buildbee --bin buildbee -- $(WRAPPER_FLAGS)
	$(CARGO) rustc --release --locked -p buildbee-recorder --lib -- $(RECORDER_FLAGS)

debug: ## the programs that tests run, in target/debug
	$(CARGO) build --workspace --locked --bins
	$(CARGO) rustc --locked -p buildbee-recorder --lib -- $(RECORDER_FLAGS)

install: release ## programs, units, man pages, completions below $(PREFIX); DESTDIR as everywhere
	packaging/install "$(TARGET_DIR)/release" "$(PREFIX)" "$(DESTDIR)"

uninstall: ## what make install has put below $(PREFIX); state and settings stay
	packaging/install --remove "$(PREFIX)" "$(DESTDIR)"

deb: release ## Debian packages of client, agent and coordinator, in target/debian
	packaging/deb "$(TARGET_DIR)/release" "$(TARGET_DIR)/debian"

packages: ## system packages that demo and test need
	packaging/packages

tools: ## cargo-deny, where it is missing (unoptimised: it runs for seconds and builds for minutes)
	@command -v cargo-deny >/dev/null || test -x "$(TARGET_DIR)/tools/bin/cargo-deny" \
	  || $(CARGO) install --locked --quiet --debug --root "$(TARGET_DIR)/tools" cargo-deny

fmt: ## format everything
	$(CARGO) fmt --all

clean: ## remove what was built
	$(CARGO) clean
