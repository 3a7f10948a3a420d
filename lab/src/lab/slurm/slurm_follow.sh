# Prints a job's output as follow.sh does, which it replaces; for a minute at most, as a script does not notice that
# its connection was lost. Exit code 78: the job has not ended, so more output may follow.
# Needs: folders.sh jobs.sh last_lines.sh

job=$folder/jobs/$id
[ -e "$job/output.log" ] || fail "job $id has no output on $hostname."
if [ -n "$last" ]; then
    show_last "$job/output.log" "$last"
    exit 0
fi
tries=60
while :; do
    find_facts "$job"
    case $follow:$alive in yes:yes | yes:unasked) over='' ;; *) over=yes ;; esac
    size=$(wc -c <"$job/output.log") # reopened each time, as a shared file system is late
    if [ "$size" -gt "$from" ]; then
        tail -c "+$((from + 1))" "$job/output.log" | head -c "$((size - from))"
        from=$size
    fi
    [ -z "$over" ] || exit 0
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 78
    sleep 1
done
