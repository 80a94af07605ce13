# The first compile elsewhere with a compiler that no agent knows: from the command to its end, capture included. What the client sends for it,
# and for what comes after: the same on another agent, another compiler that shares most of its files, and one of which one file has changed.
section_first() {
    local n_rounds=${BUILDBEE_FIRST_ROUNDS:-3} n slots_per_desk=1
    forget_first
    for n in $(seq "$n_rounds"); do first_round; done
    section "the first compile elsewhere, two agents with one slot each, the client compiles nothing"
    columns "" "wall ms" "client sent MB" "agents sent MB"
    row_first "gcc -c, nobody knows gcc" gcc
    row_first "the other agent gets it, too" gcc-other
    row_first "g++ -c after that" g++
    row_first "gcc, with a file of 1 MiB changed" changed
    row_first "rustc, nobody knows it" rustc
    row_first "two crates, one on the other agent" rustc-other
    note "where they ran, by round: $(tr '\n' ';' <"$work/first/stats")"
    wanted "gcc, ms" "$(ms "$(first_median gcc 1)")" 3000
    wanted "rustc, ms" "$(ms "$(first_median rustc 1)")" 15000
}
forget_first() { mkdir -p "$work/first"; rm -f "$work/first/"*; }
first_median() { awk -v c="$2" '{ print $c }' "${work%/farm*}/first/$1" 2>/dev/null | median_of; } # row, column
row_first() { # label, row
    columns "$1" "$(ms "$(first_median "$2" 1)")" "$(megabytes "$(first_median "$2" 2)")" "$(megabytes "$(first_median "$2" 3)")"
}

# Runs a command as the client and notes it in a row.
first_timed() { # row, command...
    local row=$1 began sent agents
    shift
    sent=$(bytes_out client) agents=$(($(bytes_out desk1) + $(bytes_out desk2)))
    began=${EPOCHREALTIME/./}
    (cd "$work/src" && in_client "$@") >"$work/log" 2>&1 || { echo "blobs: $*" >&2; cat "$work/log" "$work"/desk*.err >&2; exit 1; }
    began=$((${EPOCHREALTIME/./} - began))
    sent=$(($(bytes_out client) - sent)) agents=$(($(bytes_out desk1) + $(bytes_out desk2) - agents))
    echo "$began $sent $agents" >>"${work%/farm*}/first/$row"
}

first_round() {
    local n rustc flags=(--crate-type lib --edition 2021 --emit "metadata,link")
    rustc="$(rustc --print sysroot)/bin/rustc"
    new_farm 2
    mkdir -p "$work/src" "$work/gcc/bin" "$work/gcc/lib/gcc/x86_64-linux-gnu"
    cp /usr/bin/x86_64-linux-gnu-gcc-12 "$work/gcc/bin/gcc-12"
    cp -r /usr/lib/gcc/x86_64-linux-gnu/12 "$work/gcc/lib/gcc/x86_64-linux-gnu/"
    # No compile starts it, and so it may hold anything.
    head -c 1048576 /dev/urandom >"$work/gcc/lib/gcc/x86_64-linux-gnu/12/collect2"
    echo 'int one(void) { return 1; }' >"$work/src/one.c"
    echo 'int two() { return 2; }' >"$work/src/two.cc"
    for n in three four five; do echo "pub fn $n() -> &'static str { \"$n\" }" >"$work/src/$n.rs"; done
    # What was written a moment ago is not trusted.
    sleep 1.2
    first_timed gcc buildbee gcc -c one.c -o one.o
    first_timed gcc-other buildbee toolchain warm gcc
    first_timed g++ buildbee g++ -c two.cc -o two.o
    in_client buildbee toolchain warm "$work/gcc/bin/gcc-12" >/dev/null
    head -c 1048576 /dev/urandom >"$work/gcc/lib/gcc/x86_64-linux-gnu/12/collect2"
    sleep 1.2
    first_timed changed buildbee "$work/gcc/bin/gcc-12" -c one.c -o changed.o
    first_timed rustc buildbee "$rustc" "${flags[@]}" --crate-name three three.rs
    # Two at once: one of them where nobody has it.
    # shellcheck disable=SC2016
    first_timed rustc-other bash -c 'buildbee "$@" --crate-name four four.rs & buildbee "$@" --crate-name five five.rs && wait "$!"' - "$rustc" "${flags[@]}"
    in_client buildbee stats --json | tr -d ' \n' | grep -oE '"(cached|remote|local|desk[12])":[0-9]+' | paste -sd' ' >>"${work%/farm*}/first/stats"
    end_farm
}
