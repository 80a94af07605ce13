# Direct hits of one file, again and again: the floor (a program that does nothing), the compiler, and caches.
section_hits() {
    measure_hits tiny.c gcc -O2
    measure_hits stdio.c gcc -O2
    measure_hits headers.cc g++ -O2
}

measure_hits() { # source, compiler words...
    local source="$work/src/$1" object="$work/$1.o" name=$1 round by hits
    shift
    local compile=("$@" -c "$source" -o "$object")
    forget
    for by in ccache sccache buildbee; do
        ! have "$by" || { as "$by" "$by" "${compile[@]}"; as "$by" "$by" "${compile[@]}"; }
    done
    hits=$(count cached buildbee)
    for round in $(seq "$rounds"); do
        measure true plain "$per_round" "$per_round" /bin/true
        measure plain plain 2 -r "$object" 2 "${compile[@]}"
        for by in ccache sccache buildbee; do
            ! have "$by" || measure "$by" "$by" "$per_round" -r "$object" "$per_round" "$by" "${compile[@]}"
        done
    done
    hits=$(($(count cached buildbee) - hits))
    section "cache hit, $name, medians of $((rounds * per_round)) runs in $rounds interleaved rounds"
    columns "" "wall ms" "CPU ms" "wall/ccache" "CPU/ccache"
    columns "/bin/true (fork and exec)" "$(ms "$(wall true)")" "$(ms "$(client_cpu true)")"
    for by in plain ccache sccache buildbee; do
        if [ "$by" != plain ] && ! have "$by"; then absent "$by" "not installed"; continue; fi
        columns "$(label_of "$by")" "$(ms "$(wall "$by")")" "$(ms "$(client_cpu "$by")")" \
            "$(ratio "$(wall "$by")" "$(wall ccache)")" "$(ratio "$(client_cpu "$by")" "$(client_cpu ccache)")"
    done
    [ "$hits" -eq $((rounds * per_round)) ] || note "only $hits of buildbee's runs were hits"
    wanted "wall to ccache" "$(ratio "$(wall buildbee)" "$(wall ccache)")" 0.55
    wanted "CPU to ccache, daemon included" "$(ratio "$(client_cpu buildbee)" "$(client_cpu ccache)")" 0.55
}
