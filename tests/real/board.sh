# Functions of both tests on an emulated ARM board: systems made of packages, and the board, which is one process's namespaces. Sourced by them, after
# packaging/demo/farm.sh; $work, $roots, $suite and $board_programs are theirs.

skip() { echo "skipped: $1"; exit 0; }
emulator=/usr/lib/binfmt.d/qemu-aarch64.conf
need_emulator() {
    local command
    for command in qemu-aarch64-static bwrap unshare nsenter apt-get dpkg-deb; do
        command -v "$command" >/dev/null || skip "no $command"
    done
    [ -f "$emulator" ] || skip "no $emulator"
    unshare -Urm sh -c 'mount -t binfmt_misc none /mnt' 2>/dev/null || skip "no binfmt_misc in user namespaces"
}

# A system's folder: packages unpacked, and nothing run.
root() { # folder, architecture, package...
    local folder=$1 architecture=$2 apt="$1.apt"
    shift 2
    [ ! -f "$folder/made" ] || return 0
    rm -rf "$folder" "$apt"
    mkdir -p "$folder" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    local mirror
    mirror=$(sed -nE 's/^(URIs:|deb( \[[^]]*\])?) *([^ ]*debian)( .*)?$/\3/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian.{list,sources} 2>/dev/null | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main" >"$apt/sources"
    cat >"$apt/conf" <<EOC
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources";
Dir::Etc::sourceparts "/dev/null";
Debug::NoLocking "true";
EOC
    APT_CONFIG="$apt/conf" apt-get -qq update && APT_CONFIG="$apt/conf" apt-get -qqy --download-only install "$@" >/dev/null \
        || skip "packages of $suite for $architecture can't be fetched"
    for link in bin sbin lib lib64; do
        mkdir -p "$folder/usr/$link"
        ln -s "usr/$link" "$folder/$link"
    done
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -xf - -C "$folder" --keep-directory-symlink
    done
    mkdir -p "$folder"/{proc,dev,tmp,work,buildbee,home,rust}
    ln -sf dash "$folder/usr/bin/sh"
    rm -rf "$apt"
    : >"$folder/made"
}

# The board's system, of $suite, and what emulates it: Debian 13's qemu (10.0), since under Debian 12's (7.2) a program with threads that starts another one,
# like cargo, may hang in between for good.
board_root() {
    local program="$roots/emulator-trixie/usr/bin/qemu-aarch64"
    suite=trixie root "$roots/emulator-trixie" amd64 qemu-user
    find "$roots/emulator-trixie/usr/bin" -name 'qemu-*' ! -name qemu-aarch64 -delete
    sed "s|:[^:]*:\([A-Z]*\)\$|:$program:\1|" "$emulator" >"$work/emulator"
    emulator="$work/emulator"
    root "$roots/board-$suite" arm64 gcc g++ make libc6-dev dash libc-bin coreutils sed grep gawk diffutils findutils libstdc++6 bash
    ln -sf gawk "$roots/board-$suite/usr/bin/awk"
    ln -sf gcc "$roots/board-$suite/usr/bin/cc"
}
# A desktop's system with a cross compiler for the board.
cross_root() { # Debian's release, gcc's version
    local suite=$1
    root "$roots/cross-$1" amd64 "gcc-$2-aarch64-linux-gnu" "g++-$2-aarch64-linux-gnu" libc-bin dash bash coreutils
}
# Runs a command in a system of this machine's architecture, with the programs at /buildbee.
in_root() { # its folder, what is /work there, more for bwrap, command...
    local folder=$1 shared=$2
    shift 2
    bwrap --bind "$folder" / --proc /proc --dev /dev --tmpfs /tmp --bind "$shared" /work --ro-bind "$programs" /buildbee "$@"
}
# What the owner of a desktop does, once: on a desktop whose own system has the cross compiler that is `buildbee-agent toolchain add`.
pack_cross() { # Debian's release, gcc's version, folder
    mkdir -p "$3"
    in_root "$roots/cross-$1" "$3" /buildbee/buildbee-cli toolchain pack "/usr/bin/aarch64-linux-gnu-gcc-$2" --into /work
}
# This machine's release of rustc for the board, in $board_rust; says what is missing where it can't be had.
board_rustc() {
    target=aarch64-unknown-linux-gnu
    command -v rustup >/dev/null || { echo "no rustup"; return 1; }
    release=$(rustc -vV | sed -n 's/^release: //p')
    host=$(rustc -vV | sed -n 's/^host: //p')
    sysroot=$(rustc --print sysroot)
    [ -d "$sysroot/lib/rustlib/$target/lib" ] || { echo "rustc $release here has no library of $target (rustup target add $target)"; return 1; }
    board_rust="$roots/rustup/toolchains/$release-$target"
    [ -x "$board_rust/bin/rustc" ] || RUSTUP_HOME="$roots/rustup" rustup -q toolchain install "$release-$target" --profile minimal --force-non-host \
        --no-self-update >/dev/null 2>&1 || { echo "rustup does not have rustc $release for $target"; return 1; }
    mkdir -p "$roots/board-$suite/rust"
}
# A crate's sources with all that it needs, in $roots/crates.
vendored() { # folder in board-crates
    [ ! -d "$roots/crates/$1" ] || return 0
    rm -rf "$roots/crates/.new"
    mkdir -p "$roots/crates/.new"
    cp -r "$here/board-crates/$1/." "$roots/crates/.new"
    (cd "$roots/crates/.new" && cargo vendor --quiet --locked) >/dev/null 2>&1 || skip "crates of $1 can't be fetched"
    mkdir "$roots/crates/.new/.cargo"
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "vendor"\n' >"$roots/crates/.new/.cargo/config.toml"
    mv "$roots/crates/.new" "$roots/crates/$1"
}

board_pid=""
# The board's one process that everything else on it joins: its namespaces are the board. $board_rust is a toolchain for it, if it has one.
board_up() {
    local root="$roots/board-$suite"
    # shellcheck disable=SC2016
    start_in_space client unshare -Urm sh -eu -c '
        mkdir -p "$2/home/bf"
        mount -t binfmt_misc none "$2/home/bf"
        cat "$1" >"$2/home/bf/register"
        mount --rbind /proc "$2/proc"
        mount --rbind /dev "$2/dev"
        mount -t tmpfs none "$2/tmp"
        mount --bind "$3" "$2/work"
        mount --bind "$4" "$2/buildbee"
        [ -z "$5" ] || mount --rbind "$5" "$2/rust"
        exec chroot "$2" /usr/bin/sleep infinity' sh "$emulator" "$root" "$work/board" "$board_programs" "${board_rust:-}" &
    board_pid=$!
    pids+=("$board_pid")
    local n=0
    until in_client true 2>/dev/null; do
        n=$((n + 1))
        [ "$n" -lt 100 ] || { echo "the board does not come up" >&2; exit 1; }
        sleep 0.1
    done
}
# Runs a command on the board.
in_client() {
    env -i PATH=/buildbee:/usr/bin:/bin HOME=/home LC_ALL=C TMPDIR=/tmp BUILDBEE_SOCKET=/work/client/daemon.sock \
        BUILDBEE_STATE_DIR=/work/client/state BUILDBEE_CACHE_DIR=/work/client/cache BUILDBEE_LOCAL_SLOTS=0 BUILDBEE_RACING=off \
        BUILDBEE_MDNS=off "${board_env[@]}" \
        /usr/bin/nsenter --preserve-credentials -t "$board_pid" -U -m -n -r -w -- "$@"
}
board_env=(BUILDBEE_LOG=info)
client_env() { mkdir -p "$work/board/client" && chmod 700 "$work/board/client"; }
down() {
    [ -z "$board_pid" ] || in_client buildbee stop >/dev/null 2>&1 || true
    BUILDBEE_SOCKET="" farm_down
    [ -n "${BOARD_KEEP:-}" ] || rm -rf "$work"
}
