# Leaves alone what a newer lab has started, in ways that this one does not know.

# require_known_job: fails unless $job exists, and no newer lab has started it
require_known_job() {
    [ -e "$job/job.json" ] || fail "there is no job $id on $hostname."
    written_in=$(sed -n '1s/^{"format": \([0-9]\{1,9\}\)[,}].*/\1/p' "$job/job.json")
    [ "${written_in:-0}" -le "$format" ] || fail "a newer lab has started job $id on $hostname: run lab update first."
}
