# Waits until all of these jobs have ended, or one of them; a minute at most, as a script does not notice that its
# connection was lost. Variables: ids, any (yes: one is enough). Prints the jobs as list.sh does.
# Needs: jobs.sh

for id in $ids; do
    [ -e "$folder/jobs/$id/job.json" ] || fail "there is no job $id on $hostname."
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
