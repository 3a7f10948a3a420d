# Runs one attempt of a job: its command as a step, then what its end calls for. Sourced in the job's folder by its
# batch script, which has trapped USR1 (near).
# shellcheck disable=SC2154  # job.sh has the variables: what lab run was told, and the folders

near=${near:-} told=''
trap 'told=yes' TERM
job=$(pwd)
. ./job.sh
. ./slurm_clear.sh
. ./job_command.sh

# whole FILE WORDS: writes a line to a file, completely or not at all
whole() { printf '%s\n' "$2" >"$1.$SLURM_JOB_ID" && mv "$1.$SLURM_JOB_ID" "$1"; }

finish() { # CODE [WORD]: ends the job; WORD says how, if the code does not
    [ -z "${2:-}" ] || whole slurm_end "$2"
    write_end "$1"
    exit 0
}

# may_write: whether this is still the current attempt; after a node has failed there may be two
may_write() { read -r current <attempt && [ "$current" = "$attempt" ]; }

# pass_on: once the command listens, sends USR1 to those of its processes that handle it; it would end others
pass_on() {
    near=yes
    until [ -e "listens.$attempt" ]; do
        kill -0 "$step" || return 0
        sleep 1
    done
    for environ in $(grep -lzsx "LAB_JOB=$id" /proc/[0-9]*/environ); do
        pid=${environ%/environ} pid=${pid#/proc/}
        grep -qzsx "LAB_ATTEMPT=$attempt" "$environ" &&
            grep -qs '^SigCgt:.*[2367abef]..$' "/proc/$pid/status" && kill -s USR1 "$pid"
    done
} 2>/dev/null

# ask_slurm: sets about; exits if Slurm has requeued the job, and perhaps runs another attempt by now
ask_slurm() {
    until about=$(scontrol show job "$SLURM_JOB_ID" -o); do sleep 2; done 2>/dev/null
    case $about in *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;; *) exit 1 ;; esac
}

# go_on: continues in another attempt, after this one has written its checkpoint or has done nothing
go_on() {
    trap '' TERM # a requeue sends it at once, also to scontrol, which would then fail
    ask_slurm
    # not if somebody has cancelled it: our requeue would bring it back
    case $about in *" JobState=RUNNING "* | *" Reason=TimeLimit "*) ;; *) exit 0 ;; esac
    phase queued "its next attempt"
    [ ! -e stop ] || finish 143
    scontrol requeue "$SLURM_JOB_ID" 2>/dev/null && exit 0
    # requeue is off here
    rm -f slurm_id
    number=$SLURM_JOB_ID
    number=$(clear_slurm && sbatch --parsable --dependency="afterany:$number" --chdir="$job" \
        --output="$job/output.log" batch.sh "$job") || {
        echo "lab: the job could resume, but Slurm accepted no further attempt."
        finish "$code"
    }
    (set -C && printf '%s\n' "${number%%;*}" >slurm_id) 2>/dev/null
    [ ! -e stop ] || scancel "${number%%;*}"
    exit 0
}

# begin_again: continues after an attempt that did nothing, unless the two before it did nothing either
begin_again() {
    [ -e "again.$((attempt - 1))" ] && [ -e "again.$((attempt - 2))" ] && return
    true >"again.$attempt" && go_on
}

# --- whose turn it is -----------------------------------------------------------------------------

(set -C && printf '%s\n' "$SLURM_JOB_ID" >slurm_id) 2>/dev/null
read -r owner <slurm_id
[ "${owner:-$SLURM_JOB_ID}" = "$SLURM_JOB_ID" ] || exit 0 # it was submitted twice, as an answer was lost
[ ! -e exit_code ] || exit 0
[ ! -e stop ] || finish 143
attempt=0
[ ! -e attempt ] || read -r attempt <attempt
attempt=$((attempt + 1))
whole attempt "$attempt"
read -r host </proc/sys/kernel/hostname
whole "began.$attempt" "$(date +%s) $host $SLURM_JOB_ID"

# --- the command, as a step: only steps are told of a preemption in time --------------------------

# repeats what the job has, as srun would read it from variables that may have been changed
set -- --jobid="$SLURM_JOB_ID" --nodes=1 --ntasks=1 --quiet --export=ALL
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || set -- "$@" --cpus-per-task="$SLURM_CPUS_PER_TASK"
[ -z "${SLURM_MEM_PER_NODE:-}" ] || set -- "$@" --mem="$SLURM_MEM_PER_NODE"
[ -z "${SLURM_MEM_PER_CPU:-}" ] || set -- "$@" --mem-per-cpu="$SLURM_MEM_PER_CPU"
(clear_slurm && exec srun "$@" sh "$job/slurm_step.sh" "$attempt") &
step=$!
trap pass_on USR1
[ -z "$near" ] || pass_on
while :; do
    wait $step
    code=$?
    kill -0 $step 2>/dev/null || break # else a signal ended the wait
done

# --- its end --------------------------------------------------------------------------------------

may_write || exit 0
heard='' # Slurm has sent SIGTERM to all of the step
[ ! -e "ended.$attempt" ] || read -r code _ heard <"ended.$attempt"
[ ! -e stop ] || finish 143
[ "$code" = 0 ] || [ ! -e "interrupted.$attempt" ] || code=75 # torchrun has an exit code of its own
[ "$code" != 75 ] || [ ! -e "listens.$attempt" ] || go_on
if [ ! -e "ended.$attempt" ] || [ "$code" = 143 ] || [ -n "$told$heard" ]; then # Slurm may know why
    ask_slurm
    case $about in
    *" Reason=TimeLimit "*) finish "$code" timeout ;; # Slurm does not requeue it by itself
    *" JobState=RUNNING "*) ;;
    *) exit 1 ;; # Slurm has ended it; after a node failure the command may still run, and srun returns 0
    esac
    case $code:$heard$about in
    143:*" PreemptTime="[0-9]* | [!0]*:heard*" PreemptTime="[0-9]*) go_on ;; # Slurm would requeue it too, but later
    esac
    if [ ! -e "ended.$attempt" ] && { [ "$code" = 0 ] || [ ! -e "step.$attempt" ]; }; then
        [ "$code" != 0 ] || code=1
        begin_again # srun could not start it
    elif [ "$code:$heard" = 143:heard ] && [ ! -e "listens.$attempt" ]; then
        begin_again
    fi
fi
if [ "$code" != 0 ] && grep -qE '^(slurmstepd|srun)[^ ]* error: .*(memory limit|oom.kill|Out Of Memory)' output.log; then
    finish "$code" out_of_memory
fi
finish "$code"
