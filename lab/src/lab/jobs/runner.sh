# Runs one job: takes its GPUs, creates its environment, runs its command, and writes its exit code.
# start.sh starts it in a session of its own; with "terminal", script copies what the terminal shows to output.log.
# shellcheck disable=SC2154  # job.sh has the variables: what lab run was told, and the folders

job=$(cd "$(dirname "$0")" && pwd) || exit 1
cd "$job" || exit 1
if [ "${1:-}" = terminal ]; then
    # script would add lines of its own to a file
    script -qefc "sh runner.sh" /dev/null | tee -a output.log
    exit
fi
mkdir once 2>/dev/null || exit 0 # another runner has this job
. ./job.sh
. ./jobs.sh
. ./environment.sh
. ./enter_machine.sh
. ./gpus.sh
. ./queue.sh
. ./left_files.sh
. ./job_command.sh
trap : INT HUP TERM # they are for the command; the runner waits for its end

end() { # CODE: of the job
    LAB_JOB='' # lab stop does not wait for what follows
    count_written
    write_end "$1"
    exit "$1"
}

if_stopped() { if [ -e stop ]; then end 143; fi; }

born=$(started $$)
printf '%s %s %s %s %s\n' $$ "$boot" "$born" "$(date +%s)" "$hostname" >pid.new && mv pid.new pid || end 1

# --- secrets: through a pipe, so that they are on no disk; until the command starts they are in this shell alone ---

if [ -n "$secrets" ]; then
    phase queued "it waits for its secrets"
    brought=$(limit 60 cat secrets)
    case $brought in
    *"# complete") rm -f phase secrets ;;
    *)
        rm -f secrets
        if_stopped
        echo "lab: the secrets of this job did not arrive, so it did not start."
        end 1
        ;;
    esac
fi

# --- GPUs: free if no process computes on them and no other job of this user has taken them -------

chosen=''
decide_number
[ -z "$why" ] || echo "lab: this job runs without a GPU: $why"
if [ -n "$gpus" ] && [ "$gpus" != 0 ]; then
    if [ -n "$queue" ] && ! join_queue; then
        echo "$ours on $hostname cannot be written." >refused
        end 1
    fi
    until take_gpus; do
        if [ "$have" -lt "$gpus" ]; then
            echo "$hostname has only $have GPUs." | tee refused
            end 1
        elif [ -z "$queue" ]; then
            echo "${why%;}. $lab run --queue waits for them, --gpus 0 runs without one." >refused
            end 1
        fi
        phase queued "${why%;}"
        if_stopped
        sleep 5
    done
    echo "$chosen" >gpus
fi

# --- the environment of this job's own lock, and the command in it -------------------------------

if [ -n "$prelude" ]; then phase queued "the prelude of machines.toml is running"; fi
enter_job
if ! environment_ready; then
    phase queued "its environment is being created"
    mkdir -p "$folder/envs"
    (
        flock 7 || exit # lab stop has interrupted it
        bootstrap "$code" --source "$folder/work/$project" --no-kernel --no-git
    ) 7>>"$folder/envs/.lock"
    if_stopped
    if ! environment_ready; then
        echo "lab: the environment of this job's lock could not be created, so it did not start."
        [ ! -e "$folder/wheels/only" ] || echo "lab: $hostname cannot reach a package index: $lab setup brings what is missing."
        end 1
    fi
fi
if_stopped
set --
if [ -n "$gpus" ]; then # on a machine without GPUs these stay unset
    set -- CUDA_DEVICE_ORDER=PCI_BUS_ID "CUDA_VISIBLE_DEVICES=$chosen"
fi
run_command "$@"
