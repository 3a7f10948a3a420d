# Runs one attempt of a job's command, as a step of srun. Argument: the number of the attempt.
# shellcheck disable=SC2154  # job.sh has the variables: what lab run was told, and the folders

job=$(cd "$(dirname "$0")" && pwd) || exit 1
cd "$job" || exit 1
exec </dev/null >>output.log 2>&1
attempt=$1 heard='' phase=''

end() { # CODE: of this attempt
    [ "$phase" != running ] || count_written
    trap '' TERM
    printf '%s\n' "$1 $(date +%s) $heard" >"ended.$attempt.new" && mv "ended.$attempt.new" "ended.$attempt"
    exit 0 # srun would print every other code
}

trap : INT HUP USR1 # they are for the command; this waits for its end
trap 'heard=heard; [ "$phase" = running ] || end 143' TERM # it has also ended what prepares the command
true >"step.$attempt"
given_gpus=${CUDA_VISIBLE_DEVICES:-}
. ./job.sh
. ./environment.sh
. ./enter_machine.sh
. ./left_files.sh
. ./job_command.sh

enter_job
if ! environment_ready; then # a job may have no network to make one
    echo "lab: the environment $environment is gone: start the job again."
    end 1
fi
[ ! -e stop ] || end 143
[ -z "$given_gpus" ] || printf '%s\n' "$given_gpus" >gpus
# in LAB_JOB_FOLDER the command sees whether LAB_ATTEMPT is still the current one
run_command "LAB_ATTEMPT=$attempt" "CUDA_VISIBLE_DEVICES=$given_gpus"
