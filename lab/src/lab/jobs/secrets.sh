# Passes secrets, lines of sh on standard input, to the job that waits for them, through a named pipe, so that they are
# on no disk. Variables: id, interactive. Prints the job as list.sh does.
# Needs: folders.sh code.sh jobs.sh tmux.sh gpus.sh started.sh

job=$folder/jobs/$id
repo=$folder/repo.git
# not >, which would create a file if the job has given up
limit 30 dd of="$job/secrets" conv=nocreat,notrunc 2>/dev/null || fail "job $id on $hostname no longer waits for its secrets."
tries=0
while [ -p "$job/secrets" ] && [ $tries -lt 600 ]; do sleep 0.05; tries=$((tries + 1)); done
await_start
date +%s
describe "$job"
