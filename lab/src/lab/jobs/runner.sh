# One job: gets its GPUs, sees to its environment, runs it, and writes down how it ended.
# start.sh starts it in a session of its own; with "terminal" it records its terminal.
# shellcheck disable=SC2154  # job.sh has the variables: what lab run was told, and the folders

job=$(cd "$(dirname "$0")" && pwd) || exit 1
cd "$job" || exit 1
if [ "${1:-}" = terminal ]; then
    # script would add lines of its own to a file
    script -qefc "sh runner.sh recorded" /dev/null | tee -a output.log
    exit
fi
mkdir once 2>/dev/null || exit 0 # a second one has nothing to do
. ./job.sh
. ./jobs.sh
. ./environment.sh
. ./enter_machine.sh
. ./gpus.sh
. ./queue.sh
trap : INT HUP TERM # they are for the command; the runner stays to see how it ends

count_written() { # the files that the command has left in its checkout, which lab fetch brings
    [ -e code/.git ] || return
    wrote=$({
        git -C code -c core.fsmonitor= ls-files -z --others
        git -C code -c core.fsmonitor= diff HEAD -z --name-only --no-renames --diff-filter=d
    } 2>/dev/null | tr '\n\0' ' \n' | grep -vc '__pycache__/\|\(^\|/\)\.')
    [ "$wrote" = 0 ] || printf '%s\n' "$wrote" >wrote
} 2>/dev/null

end() { # CODE: the space is reserved, so this works on a full disk
    LAB_JOB='' # lab stop does not wait for what follows
    count_written
    ended_at=$(date +%s)
    # with a used-up quota some disks refuse even that: wait until there is room
    until { printf '%-40s\n' "$1 $ended_at" 1<>exit_code.new; } && mv exit_code.new exit_code; do
        sleep 5
    done 2>/dev/null
    exit "$1"
}

phase() { # WORDS: what the job is doing, for lab jobs
    printf '%s\n' "$*" >phase.new && mv phase.new phase
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
        echo "lab: the secrets of this job did not arrive: it did not start."
        end 1
        ;;
    esac
fi

# --- GPUs: free are those that no process computes on and no other job of this user has taken -----

chosen=''
decide_number
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

# with these, Debian's bash takes a job's `bash -c` for a shell of sshd and reads ~/.bashrc, whose
# python or CUDA_VISIBLE_DEVICES would replace the job's
unset SSH_CLIENT SSH2_CLIENT SSH_CONNECTION SSH_TTY
if [ -n "$prelude" ]; then phase queued "the prelude of machines.toml is run"; fi
if ! enter_machine "$job"; then
    echo "lab: $prelude_says"
    end 1
fi
LAB_JOB=$id # by this lab stop finds every process of the job
export LAB_JOB
code=$job/code/$project
find_environment "$code"
if ! environment_ready; then
    phase queued "its environment is being created"
    mkdir -p "$folder/envs"
    (
        flock 7 || exit # lab stop has ended the wait
        bootstrap "$code" --source "$folder/work/$project/src" --no-kernel --no-git
    ) 7>>"$folder/envs/.lock"
    if_stopped
    if ! environment_ready; then
        echo "lab: the environment of this job's requirements.txt could not be created: it did not start."
        [ ! -e "$folder/wheels/only" ] || echo "lab: $hostname reaches no package index: $lab setup brings what is missing."
        end 1
    fi
fi
if_stopped
VIRTUAL_ENV=$environment
PATH=$environment/bin:$PATH
PYTHONPATH=$code/src${PYTHONPATH:+:$PYTHONPATH}
PYTHONUNBUFFERED=1
LAB_PROJECT=$code
LAB_RUNS=$folder/runs
LAB_DATA=$data
# in a login shell, which reads the user's profile, these still win
LAB_GIVEN="CUDA_DEVICE_ORDER CUDA_VISIBLE_DEVICES VIRTUAL_ENV PYTHONPATH PYTHONUNBUFFERED LAB_PROJECT LAB_RUNS"
LAB_GIVEN="$LAB_GIVEN LAB_DATA LAB_JOB $given"
LAB_BASH_ENV=${BASH_ENV:-}
BASH_ENV=$job/login_shell.bash
export VIRTUAL_ENV PATH PYTHONPATH PYTHONUNBUFFERED LAB_PROJECT LAB_RUNS LAB_DATA LAB_GIVEN LAB_BASH_ENV BASH_ENV
if [ -n "$gpus" ]; then # without a GPU on the machine nothing is said about them
    CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=$chosen
    export CUDA_DEVICE_ORDER CUDA_VISIBLE_DEVICES
fi
mkdir -p "$LAB_RUNS" "$LAB_DATA"
eval "set -- $command"
if [ -n "$secrets" ]; then
    eval "$brought"
    unset brought
fi
phase running "$(date +%s)"
cd "$code/${inside:-}" || end 1
umask "${umask:-$(umask)}"
"$@"
ended=$?
cd "$job" || exit 1
end $ended
