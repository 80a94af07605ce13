# The farm when nobody does anything, after whatever ran before.
section_idle() {
    local machine before pid
    sleep 1
    declare -A before
    for machine in coord desk1 desk2 client; do before[$machine]=$(used_us "farm.$machine"); done
    sleep "$idle_s"
    section "idle for $idle_s s: coordinator, two agents, the client's daemon"
    columns "" "resident MiB" "% of a core"
    for machine in coord desk1 desk2 client; do
        # The first process of a machine is its daemon.
        read -r pid <"$groups/farm.$machine/cgroup.procs"
        columns "$machine" "$(mib "$(resident_kib "$pid")")" \
            "$(awk -v us=$(($(used_us "farm.$machine") - before[$machine])) -v s="$idle_s" 'BEGIN { printf "%.2f", us / s / 10000 }')"
    done
}
