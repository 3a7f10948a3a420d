# Waits until all of these jobs have ended, or one of them; a minute at most, as a script does not notice that its
# connection was lost. Variables: ids, any (yes: one is enough), format (of the jobs that this lab knows). Prints the jobs
# as list.sh does.
# Needs: jobs.sh known_job.sh

for id in $ids; do
    job=$folder/jobs/$id
    require_known_job
done
tries=60
while [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    some='' all=yes
    for id in $ids; do
        find_facts "$folder/jobs/$id"
        [ "$alive" != never ] || [ $tries -lt 50 ] || alive=yes # it may be about to start
        case $alive in
        yes | elsewhere | unasked) all='' ;;
        *) some=yes ;;
        esac
    done
    if [ -n "$all" ] || { [ -n "$any" ] && [ -n "$some" ]; }; then break; fi
    sleep 1
done
date +%s
for id in $ids; do set -- "$@" "$folder/jobs/$id"; done
describe "$@"
