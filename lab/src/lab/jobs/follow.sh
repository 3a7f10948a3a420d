# Prints a job's output. Variables: id, from (which byte on; 0 is the first), follow (yes: until it ends),
# last (only so many lines of the output so far, after a line with its size and what is left out, in bytes).
# Needs: jobs.sh last_lines.sh

job=$folder/jobs/$id
[ -e "$job/output.log" ] || fail "job $id has no output on $hostname."
if [ -n "$last" ]; then
    show_last "$job/output.log" "$last"
elif [ -z "$follow" ]; then
    tail -c "+$((from + 1))" "$job/output.log"
else
    pid=''
    [ -e "$job/exit_code" ] || { [ -e "$job/pid" ] && read -r pid their_boot born rest <"$job/pid"; }
    if [ -n "$pid" ] && [ "$their_boot" = "$boot" ] && [ "$(started "$pid")" = "$born" ]; then
        exec tail -s 0.3 -c "+$((from + 1))" -f --pid="$pid" "$job/output.log"
    fi
    tail -c "+$((from + 1))" "$job/output.log"
fi
