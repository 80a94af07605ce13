# Whole applications, caches of this machine only: with empty stores, again from clean, and in a second checkout with another cargo home.
section_builds() {
    local application
    cp -a "$sources/cargo-home" "$work/another home"
    for application in $applications; do builds_of "$application"; done
}

builds_of() { # application
    local by round n features home="$sources/cargo-home" tree="$work/tree" second="$work/another place/and tree"
    features=$(application_of "$1" features)
    forget
    rm -rf "$tree" "$second"
    mkdir -p "$work/another place"
    cp -a "$sources/$1" "$tree"
    cp -a "$sources/$1" "$second"
    # shellcheck disable=SC2086
    for round in $(seq "$colds"); do
        for by in "${tools[@]}"; do
            forget_all "$by"
            # Compilers are looked at once, not per build.
            [ "$by" = plain ] || (cd "$work" && echo "pub fn f() {}" >first.rs && as "$by" "$(launcher_of "$by")" rustc --crate-type=lib \
                --crate-name first --emit=metadata --out-dir "$work" first.rs) >"$work/build.log" 2>&1
            build "cold-$by" "$by" "$tree" "$home" 2 build $features || continue
            [ "$by" != plain ] || continue
            for n in $(seq "$warms"); do build "warm-$by" "$by" "$tree" "$home" 2 build $features; done
            [ "$round" -ne "$colds" ] || finish "$by"
        done
    done
    section "$1, dev profile, empty stores, -j2, medians of $colds interleaved builds"
    columns "" "wall ms" "wall/plain" "CPU ms" "CPU/plain"
    for by in "${tools[@]}"; do
        columns "$(label_of "$by")" "$(ms "$(wall "cold-$by")")" "$(ratio "$(wall "cold-$by")" "$(wall cold-plain)")" \
            "$(ms "$(client_cpu "cold-$by")")" "$(ratio "$(client_cpu "cold-$by")" "$(client_cpu cold-plain)")"
    done
    wanted "CPU to plain" "$(ratio "$(client_cpu cold-buildbee)" "$(client_cpu cold-plain)")" 1.03
    wanted "wall to plain" "$(ratio "$(wall cold-buildbee)" "$(wall cold-plain)")" 1.03
    rebuilds_table warm "$1, again from clean, medians of $((colds * warms)) builds"
    rebuilds_table second "$1, second checkout, another cargo home, medians of $warms builds"
}
launcher_of() { # tool
    case $1 in mbx) echo env ;; *) echo "$1" ;; esac
}
# What is left to do with the last round's store: hits, compilers started, the second checkout.
finish() { # tool
    local n
    trace_build "$1" "$tree" "$home" "$features"
    echo "$n_hits of $n_calls $n_starts $(stored_bytes "$1")" >"$work/samples/hits-warm-$1"
    # The very first build there tells what is shared.
    trace_build "$1" "$second" "$work/another home" "$features"
    echo "$n_hits of $n_calls $n_starts $(stored_bytes "$1")" >"$work/samples/hits-second-$1"
    for n in $(seq "$warms"); do build "second-$1" "$1" "$second" "$work/another home" 2 build $features; done
}
rebuilds_table() { # samples, title
    local by
    section "$2"
    columns "" "wall ms" "CPU ms" "CPU/plain" "CPU/mbx" "hits" "rustc starts" "stored MB"
    for by in "${tools[@]:1}"; do
        read -r hits of calls starts bytes < <(cat "$work/samples/hits-$1-$by" 2>/dev/null || echo - - - - -)
        columns "$(label_of "$by")" "$(ms "$(wall "$1-$by")")" "$(ms "$(client_cpu "$1-$by")")" \
            "$(ratio "$(client_cpu "$1-$by")" "$(client_cpu cold-plain)")" "$(ratio "$(client_cpu "$1-$by")" "$(client_cpu "$1-mbx")")" \
            "$hits $of $calls" "$starts" "$(megabytes "$bytes")"
    done
    wanted "CPU to mbx" "$(ratio "$(client_cpu "$1-buildbee")" "$(client_cpu "$1-mbx")")" 1
}
