# Ends a job and everything it started. Variables: id, grace (seconds for a clean end).
# Prints how the job stands then.
# Needs: jobs.sh

job=$folder/jobs/$id

# members ID: the processes of a job, whatever sessions they are in, by the LAB_JOB they inherited
members() {
    grep -lzsx "LAB_JOB=$1" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ member _; do
        [ "$member" != $$ ] && started "$member" >/dev/null && printf '%s\n' "$member"
    done
}

# command_of ID: the one of them that the runner has started
command_of() {
    for member in $(members "$1"); do
        read -r stat 2>/dev/null <"/proc/$member/stat" || continue
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        [ "$2" = "$runner" ] && printf '%s\n' "$member"
    done
}

[ -e "$job/job.json" ] || fail "there is no job $id on $here."
[ -e "$job/exit_code" ] && [ -z "$(members "$id")" ] && {
    date +%s
    describe "$job"
    exit 0
}
# without it, on a full disk, the job is ended all the same, and called killed
[ -e "$job/exit_code" ] || { true >"$job/stop"; } 2>/dev/null
runner=''
[ -e "$job/pid" ] && read -r runner rest <"$job/pid"

# first the command alone: it ends its workers itself, and writes its record and checkpoint
main=$(command_of "$id")
# shellcheck disable=SC2086
[ -z "$main" ] || kill -TERM $main 2>/dev/null

left() { [ -n "$(members "$id")" ]; }
wait_for_end() { # SECONDS; succeeds if nobody is left
    tries=$(($1 * 5))
    while left; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.2
    done
}
tries=$((grace * 5))
while [ -n "$(command_of "$id")" ] && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.2
done
if left; then
    # shellcheck disable=SC2046
    kill -TERM $(members "$id") 2>/dev/null
    wait_for_end 5 || {
        until wait_for_end 1; do
            # shellcheck disable=SC2046
            kill -KILL $(members "$id") 2>/dev/null
        done
    }
fi
# the runner writes the exit code
tries=100
while ! [ -e "$job/exit_code" ] && [ -n "$runner" ] && started "$runner" >/dev/null && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
date +%s
describe "$job"
