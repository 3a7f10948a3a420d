# Gives a job that waits for them its secrets, which are standard input: lines of sh. They go through a pipe with a
# name, so they are on no disk. Variables: id, interactive. Prints the job as list.sh does.
# Needs: places.sh code.sh jobs.sh tmux.sh gpus.sh started.sh

job=$folder/jobs/$id
repo=$folder/repo.git
# not >, which would make a file if the job has given up
limit 30 dd of="$job/secrets" conv=nocreat,notrunc 2>/dev/null || fail "job $id on $hostname no longer waits for its secrets."
tries=0
while [ -p "$job/secrets" ] && [ $tries -lt 600 ]; do sleep 0.05; tries=$((tries + 1)); done
await_start
date +%s
describe "$job"
