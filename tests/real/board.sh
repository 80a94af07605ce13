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
