# Ends a job and everything it started. Variables: id, grace (seconds for a clean end), format (of
# the jobs that this lab knows).
# Prints the job as list.sh does, after a line "already" if it had ended before.
# Needs: jobs.sh known_job.sh

job=$folder/jobs/$id

# members: prints the processes of the job, whatever their session: those that inherited LAB_JOB or the
# runner's session, and all their children, as a command may drop its environment. Also those in `seen`, as
# PID.BORN: their parents may have ended since.
seen=''
members() {
    {
        roots=$(grep -lzsx "LAB_JOB=$id" /proc/[0-9]*/environ | cut -d / -f 3 | xargs)
        session=''
        case ${runner:+$(cat "$job/phase")} in running*) session=$runner ;; esac
        printf '%s\n' /proc/[0-9]* | LC_ALL=C awk -v roots="$roots $session" -v session="$session" '
            BEGIN { split(roots, each); for (i in each) members[each[i]] }
            {
                path = $0 "/stat"; text = ""
                while ((getline line <path) > 0) text = text line "\n" # its name may have line breaks
                close(path)
                if (!sub(/^.*\) /, "", text)) next # it has ended
                pid = substr($0, 7)
                split(text, field, " ")
                parent[pid] = field[2]
                if (session != "" && field[4] == session) members[pid]
            }
            END {
                do {
                    more = 0
                    for (pid in parent) if (!(pid in members) && (parent[pid] in members)) { members[pid]; more = 1 }
                } while (more)
                for (pid in members) print pid
            }'
        for one in $seen; do
            [ "$(started "${one%.*}")" = "${one#*.}" ] && echo "${one%.*}"
        done
    } 2>/dev/null | sort -u | while read -r member; do
        case $member in "$$" | "$runner") continue ;; esac
        grep -qzsx LAB_JOB= "/proc/$member/environ" && continue # the runner's own, when it ends
        started "$member" >/dev/null && printf '%s\n' "$member"
    done
}

# main: prints the process that the runner started
main() {
    for member in $(members); do
        read_stat "$member" || continue
        # shellcheck disable=SC2086
        set -- $stat
        [ "$2" = "$runner" ] && printf '%s\n' "$member"
    done
}

tell() { # SIGNAL PROCESS ...: a paused process (kill -STOP) has to continue to receive it
    for member in $(members); do seen="$seen $member.$(started "$member")"; done
    [ $# = 1 ] || kill -s "$@"
    # shellcheck disable=SC2046,SC2086
    kill -s CONT $(members) $runner
} 2>/dev/null

require_known_job
runner=''
[ -e "$job/pid" ] && read -r runner their_boot born began host <"$job/pid"
if [ -n "$runner" ]; then
    # it may have ended, and another process may have its PID
    [ "$their_boot" = "$boot" ] && [ "$(started "$runner")" = "$born" ] || runner=''
    [ -n "$runner" ] || [ -e "$job/exit_code" ] || [ "$host" = "$hostname" ] ||
        fail "job $id runs on $host, which shares this folder with $hostname: it can only be stopped from there."
fi
tries=50
while [ -e "$job/exit_code" ] && [ -n "$runner" ] && started "$runner" >/dev/null && [ $tries -gt 0 ]; do
    tries=$((tries - 1)) # what it does as it ends is no part of the job
    sleep 0.1
done
[ -e "$job/exit_code" ] && [ -z "$(members)" ] && {
    echo already
    date +%s
    describe "$job"
    exit 0
}
# on a full disk the job is ended too, but its state is killed
[ -e "$job/exit_code" ] || { true >"$job/stop"; } 2>/dev/null

# first the command alone: it ends its own workers, and writes its record and checkpoint
# shellcheck disable=SC2046
tell TERM $(main)

left() { [ -n "$(members)" ]; }
wait_for_end() { # SECONDS: fails if a process is left after them
    tries=$(($1 * 5))
    while left; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.2
    done
}
tries=$((grace * 5))
while [ -n "$(main)" ] && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.2
done
if left; then
    # shellcheck disable=SC2046
    tell TERM $(members)
    rounds=0
    wait_for_end 5 || until
        # shellcheck disable=SC2046
        tell KILL $(members)
        wait_for_end 1
    do
        rounds=$((rounds + 1))
        [ $rounds -lt 5 ] || fail "job $id cannot be ended on $hostname: process $(members | xargs) is still running:" \
            "it belongs to another user, or waits for a disk or a driver."
    done
fi
# the runner writes the exit code
tries=100
while ! [ -e "$job/exit_code" ] && [ -n "$runner" ] && started "$runner" >/dev/null && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
date +%s
describe "$job"
