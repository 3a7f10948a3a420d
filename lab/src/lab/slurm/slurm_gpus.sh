# The GPUs of a partition. After gpus.sh.

# partition_has_gpus: does the one that `asked` names have any, or else the default one?
partition_has_gpus() {
    partition=$(printf '%s\n' "$asked" | tr ' ' '\n' | sed -n 's/^partition=//p')
    limit 20 sinfo -h -o '%P|%G' ${partition:+-p "$partition"} 2>/dev/null |
        awk -F '|' -v named="$partition" '(named || $1 ~ /\*$/) && $2 ~ /(^|,)gpu:/ { has = 1 } END { exit !has }'
}
