# Refuses to touch a job that a newer version of lab started.

# require_known_job: fails if $job does not exist, or a newer lab started it
require_known_job() {
    [ -e "$job/job.json" ] || fail "there is no job $id on $hostname."
    written_in=$(sed -n '1s/^{"format": \([0-9]\{1,9\}\)[,}].*/\1/p' "$job/job.json")
    [ "${written_in:-0}" -le "$format" ] || fail "a newer lab has started job $id on $hostname: run lab update first."
}
