# Ends a Slurm job and everything it started, as stop.sh does elsewhere. Variables: id, grace (seconds for a clean
# end), format. Prints what stop.sh does.
# Needs: folders.sh jobs.sh known_job.sh

job=$folder/jobs/$id
require_known_job
show() {
    date +%s
    describe "$job"
    exit 0
}
clear_slurm
# find_numbers: prints Slurm's numbers for the job with their states; by its name, as it may have been submitted more
# than once
find_numbers() { limit 20 squeue -h -n "lab-$id" -o '%A|%T' 2>/dev/null; }
unanswered() { fail "Slurm on $hostname does not answer: job $id is marked to stop, and ends at its next attempt at the latest."; }

[ ! -e "$job/exit_code" ] || { echo already && show; }
true >"$job/stop" || fail "$job cannot be written on $hostname."
listed=$(find_numbers) || unanswered
case $listed in
*'|RUNNING'*)
    # first the command alone, as scancel signals steps, not the batch script: it writes its record and checkpoint
    for line in $listed; do limit 20 scancel --signal=TERM "${line%|*}" 2>/dev/null; done
    tries=$((grace * 5))
    while [ ! -e "$job/exit_code" ] && [ $tries -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.2
    done
    ;;
esac
# a requeue beats a scancel, so look again until Slurm has nothing of it
tries=120
while listed=$(find_numbers) || unanswered; [ -n "$listed" ]; do
    case $listed in
    *'|PENDING'* | *'|RUNNING'* | *'|SUSPENDED'* | *'|CONFIGURING'* | *'|REQUEUE'*)
        for line in $listed; do
            said=$(limit 20 scancel "${line%|*}" 2>&1) || case $said in
            *"ccess"*denied*) fail "job $id belongs to another user of $hostname: $said" ;;
            esac
        done
        ;;
    *) [ ! -e "$job/exit_code" ] || break ;; # it is completing, and its exit code is written
    esac
    tries=$((tries - 1))
    [ $tries -gt 0 ] || fail "job $id is still in Slurm on $hostname: $(printf '%s' "$listed" | tr '\n' ' ')"
    sleep 0.5
done
if [ ! -e "$job/exit_code" ]; then # it never ran, or was killed
    { printf '%-40s\n' "143 $(date +%s)" 1<>"$job/exit_code.new"; } && mv "$job/exit_code.new" "$job/exit_code" ||
        fail "the end of job $id cannot be written on $hostname: is its disk full?"
fi
show
