# Asks Slurm about the jobs of this account, once a minute at most for all commands on all login nodes. After folders.sh.

queue=$ours/slurm/queue # TIME CODE of squeue; its lines; then those of sinfo, after "nodes"
FRESH=60                # seconds

# ask_queue [now]: sets queue_at and queue_code
ask_queue() {
    queue_at=0 queue_code=1
    [ -e "$queue" ] && read -r queue_at queue_code <"$queue"
    case $queue_at$queue_code in '' | *[!0-9]*) queue_at=0 queue_code=1 ;; esac
    now=$(date +%s)
    [ -n "${1:-}" ] || [ $((now - queue_at)) -ge $FRESH ] || [ "$queue_at" -gt "$now" ] || return 0
    mkdir -p "$ours/slurm" 2>/dev/null
    (
        flock -w 30 6 || exit 1
        if [ -z "${1:-}" ]; then # somebody may have asked meanwhile
            [ -e "$queue" ] && read -r other_at _ <"$queue" && [ $((now - other_at)) -lt $FRESH ] && exit 0
        fi
        clear_slurm
        at=$(date +%s)
        listed=$(limit 20 squeue -h -u "$(id -un)" -o '%A|%j|%T|%r|%S|%P' 2>/dev/null)
        code=$?
        nodes=''
        case $listed in *'|PENDING|'*) nodes=$(limit 20 sinfo -h -o 'nodes|%R|%D|%T' 2>/dev/null) ;; esac
        printf '%s\n' "$at $code" "$listed" "$nodes" >"$queue.new" && mv "$queue.new" "$queue"
    ) 6>>"$ours/slurm/lock"
    [ -e "$queue" ] && read -r queue_at queue_code <"$queue"
    return 0
} 2>/dev/null

# find_in_queue ID: prints Slurm's line for the job; "NUMBER|STATE|REASON|START|PARTITION|NODES", NODES in words
find_in_queue() {
    awk -F '|' -v name="lab-$1" '
        $1 == "nodes" && !/\*/ { sub(/[^a-zA-Z]+$/, "", $4); count[$2] += $3; state[$2] = state[$2] ", " $3 " " $4 }
        $1 == "nodes" && /\*/ { sub(/[^a-zA-Z]+$/, "", $4); count[$2] += $3; state[$2] = state[$2] ", " $3 " not responding" }
        $2 == name { line = $1 "|" $3 "|" $4 "|" $5 "|" $6; partition = $6 }
        END { if (line) print line "|" (partition in count ? count[partition] " nodes" state[partition] : "") }' "$queue"
}
