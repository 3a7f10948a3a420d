# Prints the machine's clock, in seconds, and how many jobs it leaves out; then a line for each job, as describe
# in jobs.sh does. Variables: id (only that one, or ""), limit (0: all of them).
# Needs: jobs.sh

clock=$(date +%s)
if [ -n "$id" ]; then
    [ -e "$folder/jobs/$id/job.json" ] || fail "there is no job $id on $hostname."
    echo "$clock"
    describe "$folder/jobs/$id"
    exit 0
fi
set -- "$folder"/jobs/*
rest=0 hidden=0
[ "$limit" = 0 ] || [ $# -le "$limit" ] || rest=$(($# - limit))
while [ $rest -gt 0 ]; do # of the older ones only those that have not ended
    rest=$((rest - 1))
    job=$1
    shift
    if [ -e "$job/exit_code" ]; then hidden=$((hidden + 1)); else set -- "$@" "$job"; fi
done
echo "$clock $hidden"
describe "$@"
exit 0
