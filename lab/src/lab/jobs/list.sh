# Prints the machine's clock, in seconds, then a line for each job, as describe in jobs.sh does.
# Variables: id (only that one, or ""), most (0: all of them).
# Needs: jobs.sh

date +%s
if [ -n "$id" ]; then
    [ -e "$folder/jobs/$id/job.json" ] || fail "there is no job $id on $hostname."
    describe "$folder/jobs/$id"
    exit 0
fi
[ -d "$folder/jobs" ] || exit 0
set -- "$folder"/jobs/*/
if [ "$most" != 0 ] && [ $# -gt "$most" ]; then
    rest=$(($# - most))
else
    rest=0
fi
for job; do
    job=${job%/}
    # of the older ones only those that have not ended
    if [ $rest -gt 0 ]; then
        rest=$((rest - 1))
        [ -e "$job/exit_code" ] && continue
    fi
    [ -e "$job/job.json" ] && describe "$job"
done
exit 0
