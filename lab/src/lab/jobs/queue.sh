# Decides which GPUs a job gets, and when: first come, first served among all jobs of this account on this machine. For
# runner.sh and free_gpus.sh, after jobs.sh and gpus.sh. Variables: id, gpus, born (of the process that asks).

# decide_number: if gpus is "some", sets it to 1, or to '' if the machine has no GPU, and why if nvidia-smi failed
decide_number() {
    why=''
    [ "$gpus" = some ] || return 0
    listed=$(smi --query-gpu=index)
    code=$?
    case $code in
    0) gpus=${listed:+1} ;;
    124 | 137) gpus=1 ;; # nvidia-smi hangs, so there probably are GPUs
    *)
        gpus=''
        command -v nvidia-smi >/dev/null || return 0
        why="nvidia-smi on $hostname ended with $code"
        [ -z "$listed" ] || why="nvidia-smi on $hostname says: $(printf '%s\n' "$listed" | head -n 1)"
        ;;
    esac
}

is_alive() { # FILE: whether the process that it names still runs; sets other_pid ... other_gpus
    [ -e "$1" ] && read -r other_pid other_boot other_born other_job other_gpus <"$1" &&
        [ "$other_boot" = "$boot" ] && [ "$(started "$other_pid")" = "$other_born" ]
}

# join_queue: from now on, no job that comes later may delay this one
join_queue() {
    mkdir -p "$ours/waits-$hostname" &&
        echo "$$ $boot $born $id $gpus" >"$ours/.$id" && mv "$ours/.$id" "$ours/waits-$hostname/$id"
}

choose_gpus() { # sets chosen, or why; have: how many the machine has; holders: a word for each GPU that is not free
    chosen='' why='' found=0 have=$gpus holders=''
    command -v nvidia-smi >/dev/null || { have=0 && return 1; } # waiting would be pointless
    listed=$(list_gpus) ||
        { why="nvidia-smi on $hostname does not answer, so it is unknown which GPUs are free"; return 1; }
    have=$(printf '%s\n' "$listed" | grep -c .)
    while IFS='|' read -r index holder _; do
        [ -n "$index" ] || continue
        held_by=''
        [ -z "$holder" ] || held_by=somebody.$index # a word of its own for each, as they may end apart
        if is_alive "$ours/gpu-$hostname-$index"; then
            holder="job $other_job" held_by=$other_job
        fi
        if [ -n "$holder" ]; then
            why="$why GPU $index: $holder;"
            holders="$holders $held_by"
        elif [ "$found" -lt "$gpus" ]; then
            chosen=${chosen:+$chosen,}$index
            found=$((found + 1))
        fi
    done <<LISTED
$listed
LISTED
    [ "$found" = "$gpus" ] && return 0
    why="$hostname has fewer free GPUs than $gpus:$why"
    return 1
}

# list_earlier: prints "BORN PID GPUS JOB" of each waiting job that came before, in that order
list_earlier() {
    for file in "$ours/waits-$hostname"/*; do
        if ! is_alive "$file"; then
            rm -f "$file"
        elif [ "$other_born" -lt "$born" ] || { [ "$other_born" = "$born" ] && [ "$other_pid" -lt $$ ]; }; then
            echo "$other_born $other_pid $other_gpus $other_job"
        fi
    done | sort -n -k 1,1 -k 2,2
}

# my_turn: whether each of those would start just as early if this job kept its GPUs for ever, in whatever order
# the others end; if not, sets why. `can` has the numbers of GPUs that may be held when some of them have ended.
# After choose_gpus, under the lock
my_turn() {
    first=$(list_earlier | awk -v holders="$holders" -v have="$have" -v mine="$gpus" '
        function may_hold(number,  held) {
            for (held = have; held >= number; held--) if ((held - number) in can) can[held] = 1
        }
        BEGIN {
            can[0] = 1
            split(holders, words, " ")
            for (i in words) size[words[i]]++
            for (holder in size) may_hold(size[holder])
        }
        {
            enough = have - $3 # so many may be held when it starts
            for (held = enough; held > enough - mine; held--) if (held in can) { print $4, $3; exit }
            may_hold($3)
        }')
    [ -z "$first" ] && return 0
    why="job ${first% *} came first, and waits for ${first#* } GPUs on $hostname"
    return 1
}

mark_gpus() { # writes whose they are, of all of chosen or, if that fails, of none
    set --
    for index in $(echo "$chosen" | tr , ' '); do set -- "$@" "$ours/gpu-$hostname-$index"; done
    for mark; do
        echo "$$ $boot $born $id" >"$mark" && continue
        why="$ours on $hostname cannot be written"
        rm -f "$@"
        return 1
    done 2>/dev/null
}

take_gpus() { # under a lock, so that two jobs do not take the same ones
    exec 8>>"$ours/gpus.lock"
    flock 8
    choose_gpus && my_turn && mark_gpus && rm -f "$ours/waits-$hostname/$id"
    result=$?
    exec 8>&-
    return $result
}
