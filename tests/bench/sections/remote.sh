# A real project's files elsewhere: what stays with the client, and what goes over the wire.
section_remote() {
    local by n linked=1
    use_project rocksdb
    forget
    # Both agents get the compiler, and nothing else, beforehand.
    for n in 1 2 3 4 5 6 7 8; do as farm buildbee "$compiler" -O1 -c "$work/src/warm$n.cc" -o "$work/warm$n.o" & done
    wait_for_jobs
    for n in $(seq "$builds"); do build plain plain 2 || return; done
    as farm buildbee stats --zero >/dev/null
    build first farm 4 || return
    n="remote $(count remote farm), local $(count local farm), cached $(count cached farm)"
    # Another macro, another action: no result fits, and every input is where it was.
    build second farm 4 -DANOTHER_BUILD || return
    as farm buildbee cache clear >/dev/null
    build shared farm 4 || return
    build cached farm 4 || return
    for by in "${remote_tools[@]}"; do
        [ "$by" = farm ] || build "$by" "$by" 4
    done
    section "$title, elsewhere, make -j4, two machines with two slots each on these cores"
    columns "" "wall ms" "client CPU ms" "to plain" "total/plain" "sent MB" "received MB"
    row_remote "the compiler alone, here" plain
    row_remote "buildbee, agents know nothing" first
    note "$n"
    row_remote "buildbee, inputs at the agents" second
    row_remote "buildbee, results at the agents" shared
    row_remote "buildbee, results here" cached
    for by in "${remote_tools[@]}"; do [ "$by" = farm ] || row_remote "$(label_of "$by")" "$by"; done
    wanted "share of the client" "$(ratio "$(client_cpu first)" "$(client_cpu plain)")" 0.02
    wanted "MB sent, agents know nothing" "$(megabytes "$(sent first)")" 2.0
    wanted "MB sent, inputs at the agents, results dropped" "$(megabytes "$(sent second)")" 0.3
}
row_remote() { # label, samples
    columns "$1" "$(ms "$(wall "$2")")" "$(ms "$(client_cpu "$2")")" "$(ratio "$(client_cpu "$2")" "$(client_cpu plain)")" \
        "$(ratio "$(total_cpu "$2")" "$(total_cpu plain)")" "$(megabytes "$(sent "$2")")" "$(megabytes "$(received "$2")")"
}
