# Functions of the demo: builds of a Rust application, and what they left. Sourced by `demo`, which sets $work.

rust_fetch() {
    "$here/../crates" "$work/crates" just=1.59.0 || fail "the Rust application could not be fetched"
    cp -r "$work/crates/just" "$work/just"
    # A link named like the compiler, for C in build scripts: they pass other flags to a compiler of two words that they do not know.
    mkdir -p "$work/bee"
    ln -sf "$(command -v buildbee)" "$work/bee/gcc"
    # With nothing beside it the wrapper can't start a daemon, and says nothing, which build scripts would take for a compiler's word.
    mkdir -p -m 700 "$work/lone"
    cp "$(command -v buildbee)" "$work/lone/"
    ln -sf buildbee "$work/lone/gcc"
    export RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
    rustc_path=$(rustc --print sysroot)/bin
}

rust_build() { # name, checkout, socket of the daemon, words before cargo...
    local name=$1 checkout=$2 socket=$3
    shift 3
    rm -rf "$checkout/target"
    echo "+ RUSTC_WRAPPER=buildbee CC=gcc cargo build   (in $(basename "$checkout"); gcc is a link to buildbee)"
    (
        cd "$checkout"
        export CARGO_HOME="$work/crates/cargo-home" BUILDBEE_SOCKET="$socket" RUSTC_WRAPPER=buildbee CC="$work/bee/gcc" CARGO_INCREMENTAL=0
        [ "$name" != local ] || export RUSTC_WRAPPER="$work/lone/buildbee" CC="$work/lone/gcc"
        in_client "$@" cargo build --quiet --offline --locked -j4
    ) >"$work/rust-$name.log" 2>&1 || { tail -n 30 "$work/rust-$name.log"; fail "the $name build of the Rust application failed"; }
    (cd "$checkout/target" && rust_made) >"$work/rust-$name.made"
}
# Everything that compilers made: libraries, metadata, proc-macros, build scripts, programs, C objects.
rust_made() {
    find . -type f \( -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.a' -o -name '*.o' -o -perm -u+x \) -print0 \
        | LC_ALL=C sort -z | xargs -0 sha256sum
}
rust_compare() { # name, checkout
    diff "$work/rust-local.made" "$work/rust-$1.made" >"$work/differing" \
        || { head "$work/differing"; fail "files of the $1 build differ from the local build's"; }
    "$2/target/debug/just" --version
    echo "files: all $(wc -l <"$work/rust-$1.made") of target identical to the local build, byte for byte"
}
rust_no_compiler() {
    local started
    started=$(cat "$work/starts" "$work/daemon-starts" | grep -E "execve\\(\"$rustc_path/rustc\"" | grep -cE '"--out-dir", "[^"]*/(deps|build/[^"/]*)"' || true)
    echo "rustc started to compile a crate: $started times"
    [ "$started" = 0 ] || fail "a compiler was started in the cached build"
}
rust_no_crate_made() {
    local actions made
    actions=$(($(count cached) + $(count remote) + $(count local)))
    made=$(in_client buildbee explain --last "$actions" --json | tr -d '\n' | sed 's/"action":/\n&/g' \
        | grep -E '"compiler": *"([^"]*/)?rustc"' | grep -cE '"where": *"remote"' || true)
    echo "crates compiled by an agent: $made"
    # Where a file changed while it was compiled, by the clock, nothing was kept: on a busy machine that is one or two of 118.
    [ "$made" -le 2 ] || fail "crates were compiled again"
}
