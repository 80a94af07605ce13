# Functions of `run`: what a build made, compared with the plain build's. Sourced by it, which sets $work.
. "$here/lists.sh"

# Path, mode, and digest or target of everything in a tree that the sources don't have just so.
list_made() { # sources, results
    list_all "$1" >"$work/sources.list"
    list_all "$2/tree" | LC_ALL=C comm -13 "$work/sources.list" - >"$2/made"
}
list_all() { # tree
    (
        cd "$1" || exit 1
        find . -type f -print0 | sort -z | xargs -0r sha256sum | sed -E 's/^([0-9a-f]{64})  (.*)$/\2\t\1/' >"$work/digests"
        find . -type f -printf '%p\t%m\n' | sort >"$work/modes"
        LC_ALL=C join -t "$(printf '\t')" <(LC_ALL=C sort "$work/modes") <(LC_ALL=C sort "$work/digests")
        find . -type l -printf '%p\tlink\t%l\n'
    ) | LC_ALL=C sort
}

heading() {
    printf '%-12s %-8s %6s %6s %8s %-8s %7s %7s %7s  %s\n' project way files same varying text cached remote local "why local"
}

# Prints the way's line, and what differs. Fails if anything does.
compare() { # project, way
    local project=$1 way=$2 results="$work/results" text=same files same varying json="$work/results/$2/build.json"
    list_made "$sources/$project" "$results/$way"
    # What the two plain builds don't agree on is varying by itself.
    compare_lists "$results/plain/made" "$results/again/made" "$results/$way/made" "$results/$way/differing" "" >"$results/$way/counts"
    read -r files same varying _ <"$results/$way/counts"
    text=$(compare_text "$results" "$way")
    printf '%-12s %-8s %6s %6s %8s %-8s %7s %7s %7s  %s\n' "$project" "$way" "$files" "$same" "$varying" "$text" \
        "$(number cached "$json")" "$(number remote "$json")" "$(number local "$json")" "$(reasons "$json")"
    [ ! -s "$results/$way/differing" ] || { sort "$results/$way/differing" | head -n 20 | sed 's/^/    differs: /'; }
    [ "$text" != differs ] || diff <(sorted "$results/plain") <(sorted "$results/$way") | head -n 12 | sed 's/^/    text: /'
    [ ! -s "$results/$way/differing" ] && [ "$text" != differs ]
}

# Parallel jobs speak in any order, so lines are compared as a set.
sorted() { LC_ALL=C sort "$1/text"; }
compare_text() { # results, way
    if cmp -s <(sorted "$1/plain") <(sorted "$1/$2"); then
        echo same
    elif cmp -s <(sorted "$1/plain") <(sorted "$1/again"); then
        echo differs
    else
        echo varying
    fi
}
