# Lists the files of runs, of their models, and those that jobs left in their checkouts. Variables: wanted (ids of jobs
# or runs, one per line; empty: all), models (yes: include them).
# Prints, each ended by a NUL: the folder of the runs, that of the data, rsync's version, and for
# every file "KIND TYPE SIZE TIME PATH": KIND is runs, data or jobs, PATH is relative to that folder. TYPE d: a
# folder that cannot be read.
# Needs: folders.sh jobs.sh left_files.sh

printf '%s\0' "$folder/runs" "$data" "$(rsync --version 2>/dev/null | head -n 1)"
cd "$folder/runs" 2>/dev/null || exit 0
for id in $wanted; do
    [ -d "$id" ] || [ -d "$folder/jobs/$id" ] || fail "there is no job or run $id on $hostname."
done

runs() { # prints the folders of the runs, each ended by a NUL
    if [ -z "$wanted" ]; then
        for run in ./*; do if [ -d "$run" ]; then printf '%s\0' "$run"; fi; done
        return
    fi
    for id in $wanted; do
        if [ -d "$id" ]; then printf './%s\0' "$id"; fi
        find . -mindepth 2 -maxdepth 2 -name run.json -exec grep -lsZ "\"lab\": \"$id\"" {} + |
            sed -z 's|/run\.json$||'
    done
    for shared in ./_sources ./_resources; do # several records refer to them
        if [ -d "$shared" ]; then printf '%s\0' "$shared"; fi
    done
}

# unfinished files begin with a dot or, if they are models, end in .new; in _ranks the ranks of a
# distributed run communicate
runs | xargs -0 -r sh -c '
    find "$@" \( -path ./_ranks -o -path ./_cache -o -name ".*" \) -prune \
        -o \( ! -type d -o ! -readable -o ! -executable \) -printf "runs %y %s %T@ %p\0"
' sh 2>/dev/null
[ -z "$models" ] || runs | xargs -0 -r sh -c '
    cd "$0" || exit 0
    for run; do
        case $run in ./_*) continue ;; esac
        for model in ./*/models/"${run#./}"; do
            if [ -d "$model" ]; then printf "%s\0" "$model"; fi
        done
    done' "$data" | (
    cd "$data" 2>/dev/null && xargs -0 -r sh -c '
    find "$@" \( -name ".*" -o -name "*.new" \) -prune \
        -o \( ! -type d -o ! -readable -o ! -executable \) -printf "data %y %s %T@ %p\0"
    ' sh 2>/dev/null
)
cd "$folder/jobs" 2>/dev/null || exit 0
# shellcheck disable=SC2046
for id in $(describe ${wanted:-$(ls)} | awk -F '\t' '$9 != "" { print $1 }'); do # those that left files
    [ -e "$id/code/.git" ] || continue
    list_results "$id/code" | sed -z "s|^\.|./$id/code|" |
        xargs -0 -r sh -c 'find "$@" -maxdepth 0 -printf "jobs %y %s %T@ %p\0"' sh 2>/dev/null
done
exit 0
