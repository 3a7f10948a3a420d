# Finds out whether a partition has GPUs. After gpus.sh.

# partition_has_gpus: whether the partition in `asked`, or else the default one, has any
partition_has_gpus() {
    partition=$(printf '%s\n' "$asked" | tr ' ' '\n' | sed -n 's/^partition=//p')
    limit 20 sinfo -h -o '%P|%G' ${partition:+-p "$partition"} 2>/dev/null |
        awk -F '|' -v named="$partition" '(named || $1 ~ /\*$/) && $2 ~ /(^|,)gpu:/ { has = 1 } END { exit !has }'
}
