# The GPUs of this machine and who uses each of them: for runner.sh and facts.sh.

# limit SECONDS COMMAND ...: runs it with a time limit, if timeout is installed
limit() {
    if command -v timeout >/dev/null; then
        timeout -k 1 "$@"
    else
        shift
        "$@"
    fi
}

smi() { limit 8 nvidia-smi --format=csv,noheader,nounits "$@" 2>&1; }

# list_gpus: prints "INDEX|USERS|USED|TOTAL|NAME" for each, memory in MiB. USERS is empty for a free one: no
# process computes on it, and its memory is not in use. If nvidia-smi fails: its message and its exit code; if it
# hangs, 124 or 137.
list_gpus() {
    cards=''
    output=$(smi --query-gpu=index,uuid,memory.used,memory.total,name) && cards=$output &&
        output=$(smi --query-compute-apps=gpu_uuid,pid)
    code=$?
    case $code${cards:+ with cards} in
    0*) ;;
    # some GPUs do not list their processes
    '3 with cards') output='' ;;
    *) echo "$output" && return $code ;;
    esac
    echo "$cards" | sed 's/, /|/g' | while IFS='|' read -r index uuid used total name; do
        case $index in '' | *[!0-9]*) continue ;; esac
        users=$(echo "$output" | sed -n "s/^$uuid, //p" | while read -r pid; do
            ps -o user= -p "$pid" 2>/dev/null || echo somebody
        done | sort -u | xargs)
        # a container hides the processes of others, but not their memory
        case $users$used$total in
        *[!0-9]*) ;;
        *) [ "$used" -lt $((total / 20 + 500)) ] || users=somebody ;;
        esac
        echo "$index|$users|$used|$total|$name"
    done
}
