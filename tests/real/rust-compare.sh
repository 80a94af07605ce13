# Functions of `rust`: what a build made and said, compared with the reference's. Sourced by it, which sets $work.
. "$here/lists.sh"

# Path, mode, and digest or target of everything below `target` that is the compiler's or a build script's. Names of the tree and of the
# cargo home are written as such in dependency files and in what build scripts printed, since those name them by right.
list_made() { # tree, cargo home, results
    (
        cd "$1/target" || exit 0
        find . -type f ! -path '*/.fingerprint/*' ! -path '*/incremental/*' ! -name .cargo-lock ! -name .rustc_info.json \
            ! -name '.cargo-*-lock' -printf '%p\t%m\n' | LC_ALL=C sort >"$work/modes"
        cut -f1 "$work/modes" | grep -E '(\.d|/root-output|/output|/stderr)$' | while IFS= read -r path; do
            printf '%s\t%s\n' "$path" "$(placeless "$1" "$2" <"$path" | sha256sum | cut -d' ' -f1)"
        done >"$work/digests"
        cut -f1 "$work/modes" | grep -vE '(\.d|/root-output|/output|/stderr)$' | tr '\n' '\0' | xargs -0r sha256sum \
            | sed -E 's/^\\?([0-9a-f]{64})  (.*)$/\2\t\1/' >>"$work/digests"
        LC_ALL=C join -t "$(printf '\t')" "$work/modes" <(LC_ALL=C sort "$work/digests")
        find . -type l ! -path '*/incremental/*' -printf '%p\tlink\t%l\n'
    ) | LC_ALL=C sort >"$3/made"
    placeless "$1" "$2" <"$3/messages" | by_unit >"$3/said"
}
placeless() { # tree, cargo home; spaces are escaped in dependency files
    local tree home
    tree=$(sed 's/ /\\\\ /g' <<<"$1")
    home=$(sed 's/ /\\\\ /g' <<<"$2")
    sed -e "s|$1|TREE|g; s|$2|CARGO|g; s|$tree|TREE|g; s|$home|CARGO|g; s|${1// /%20}|TREE|g; s|${2// /%20}|CARGO|g"
}
# Crates are compiled in any order, a crate's messages come in theirs.
by_unit() {
    grep '^{"reason":"compiler-message"' | awk '{
        package = $0; sub(/.*"package_id":"/, "", package); sub(/".*/, "", package)
        target = $0; sub(/.*"target":\{/, "", target); sub(/\}.*/, "", target); gsub(/[ \t]/, "", target)
        print package " " target "\t" $0
    }' | LC_ALL=C sort -s -t "$(printf '\t')" -k1,1
}

heading() {
    printf '%-11s %-9s %-8s %-7s %6s %6s %5s %5s %-6s %5s %7s %7s %7s %7s  %s\n' application paths kind way files same vary place said stale \
        rustc cached remote local "why local"
}

agrees() { cmp -s "$work/results/plain/made" "$work/results/$1/made" && cmp -s "$work/results/plain/said" "$work/results/$1/said"; } # way

# Prints the way's line, and what differs. Fails if anything does that should not.
compare() { # application, paths, kind, way
    local results="$work/results" way=$4 files same vary place said=same stale=0 rustc=- again bad=0 own="" json="$work/results/$4/stats.json"
    again="$results/again/made"
    [ -f "$again" ] || again="$results/plain/made"
    # What two builds of the reference don't agree on is varying by itself. What build scripts write themselves may name the place.
    [ "$way" != second ] || own='/build/[^/]*/out/'
    # Objects and libraries don't, where names take the places' place.
    [ "$way" != second ] || [ -z "$with_c" ] || own='/build/[^/]*/out/.*[^oa]$'
    compare_lists "$results/plain/made" "$again" "$results/$way/made" "$results/$way/differing" "$own" >"$results/$way/counts"
    read -r files same vary place <"$results/$way/counts"
    if [ "$way" = second ] && [ -z "$with_c" ] && [ -f "$results/$way/differing" ]; then
        # C in build scripts names its folder, and so do the crates and programs that it is linked into.
        mv "$results/$way/differing" "$results/$way/differs"
        while IFS= read -r line; do
            if grep -qaF -e "$work/another" "$second/target/${line%% (reference: *}"; then
                echo "$line" >>"$results/$way/placed"
                place=$((place + 1))
            else
                echo "$line" >>"$results/$way/differing"
            fi
        done <"$results/$way/differs"
    fi
    if ! cmp -s "$results/plain/said" "$results/$way/said"; then
        if cmp -s <(LC_ALL=C sort "$results/plain/said") <(LC_ALL=C sort "$results/$way/said"); then said=order; else said=differs; fi
    fi
    [ ! -f "$results/$way/stale" ] || stale=$(wc -l <"$results/$way/stale")
    [ ! -f "$results/$way/starts.cargo" ] || rustc=$(compiles_started "$results/$way")
    printf '%-11s %-9s %-8s %-7s %6s %6s %5s %5s %-6s %5s %7s %7s %7s %7s  %s\n' "$1" "$2" "$3" "$way" "$files" "$same" "$vary" "$place" \
        "$said" "$stale" "$rustc" "$(number cached "$json")" "$(number remote "$json")" "$(number local "$json")" "$(reasons "$json")"
    if [ -s "$results/$way/differing" ]; then
        bad=1
        sort "$results/$way/differing" | head -n 20 | sed 's/^/    differs: /'
    fi
    if [ "$said" = differs ]; then
        bad=1
        diff "$results/plain/said" "$results/$way/said" | cut -c 1-300 | head -n 6 | sed 's/^/    said: /'
    fi
    if [ "$stale" -gt 0 ]; then
        bad=1
        sed -E 's/.*"package_id":"([^"]*)".*/    not fresh afterwards: \1/' "$results/$way/stale" | head -n 5
    fi
    if [ -f "$results/$way/placed" ]; then
        # These have to be compiled there, once.
        while read -r n name; do
            grep -qE "/(lib)?$name-[0-9a-f]+[. ]" "$results/$way/placed" || echo "$n $name"
        done <"$results/$way/compiled" >"$results/$way/others"
        mv "$results/$way/others" "$results/$way/compiled"
        rustc=$(awk '{ n += $1 } END { print n + 0 }' "$results/$way/compiled")
    fi
    if [ "$rustc" != - ] && [ "$rustc" -gt 0 ]; then
        bad=1
        sed 's/^/    compiled: /' "$results/$way/compiled" | head -n 10
    fi
    return "$bad"
}

# Compilers that were started to compile a crate of cargo's, by name. Questions (-vV, --print) and build scripts' own trials are none.
compiles_started() { # results
    {
        cat "$1"/starts.* | grep -E "execve\\(\"$rustc_path/(rustc|clippy-driver)\"" | grep -E '"--out-dir", "[^"]*/(deps|build/[^"/]*)"' \
            | sed -E 's/.*"--crate-name", "([^"]*)".*/\1/'
        # Of C as well, unless it has to do without buildbee. cargo and scripts look for them in each folder of PATH.
        [ -z "$with_c" ] || cat "$1"/starts.* | grep -E 'execve\("[^"]*/(gcc|g\+\+)"' | grep -vF "execve(\"$work/" | grep ' = 0$' \
            | grep -E '"-o", "[^"]*/out/[^"]*"' | sed -E 's/.*"-o", "[^"]*\/([^"]*)".*/\1/'
    } | LC_ALL=C sort | uniq -c >"$1/compiled"
    awk '{ n += $1 } END { print n + 0 }' "$1/compiled"
}
