# Runs the command of a job in the environment of its lock. For runner.sh and slurm_step.sh, which define end CODE;
# after left_files.sh.
# shellcheck disable=SC2154  # job.sh has the variables: what lab run was told, and the folders

count_written() { # files that the command left in its checkout, which lab fetch brings
    [ -e code/.git ] || return
    wrote=$(list_results code | tr -dc '\0' | wc -c)
    [ "$wrote" = 0 ] || printf '%s\n' "$wrote" >wrote
} 2>/dev/null

write_end() { # CODE: its space is reserved, so this works on a full disk
    ended_at=$(date +%s)
    # over quota, some file systems refuse even that: wait until there is room
    until { printf '%-40s\n' "$1 $ended_at" 1<>exit_code.new; } && mv exit_code.new exit_code; do
        sleep 5
    done 2>/dev/null
}

phase() { # WORDS: what the job is doing, for lab jobs
    printf '%s\n' "$*" >phase.new && mv phase.new phase; phase=$1
}

# enter_job: runs the prelude; sets code, python and environment, which may not exist yet
enter_job() {
    # with these, Debian's bash takes a job's `bash -c` for a shell of sshd and reads ~/.bashrc, whose
    # python or CUDA_VISIBLE_DEVICES would replace the job's
    unset SSH_CLIENT SSH2_CLIENT SSH_CONNECTION SSH_TTY
    if ! run_prelude "$job"; then
        echo "lab: $prelude_says"
        end 1
    fi
    LAB_JOB=$id # lab stop finds every process of the job by this
    export LAB_JOB
    code=$job/code/$project
    find_environment "$code"
}

# run_command NAME=VALUE ...: runs the command, with these variables too, and ends with its exit code
run_command() {
    source=$(setting "$code" source)
    # login_shell.bash restores these after a login shell has read the user's profile
    names="CUDA_DEVICE_ORDER CUDA_VISIBLE_DEVICES VIRTUAL_ENV PYTHONPATH PYTHONUNBUFFERED LAB_PROJECT LAB_RUNS"
    names="$names LAB_DATA LAB_JOB LAB_JOB_FOLDER LAB_ATTEMPT $given"
    set -- "$@" "VIRTUAL_ENV=$environment" "PYTHONPATH=$code/${source:-src}" PYTHONUNBUFFERED=1 "LAB_PROJECT=$code" \
        "LAB_RUNS=$folder/runs" "LAB_DATA=$data" "LAB_JOB=$id" "LAB_JOB_FOLDER=$job" "LAB_GIVEN=$names" --
    mkdir -p "$folder/runs" "$data"
    if [ -n "${record:-}" ] && [ -x "$environment/bin/lab" ]; then
        eval "set -- \"\$@\" \"\$environment/bin/lab\" $record"
    elif [ -n "${record:-}" ]; then
        echo "lab: the environment of this job has no lab: the command is not recorded."
    fi
    eval "set -- \"\$@\" $command"
    phase running "$(date +%s)"
    (
        cd "$code/${inside:-}" || exit 1
        umask "${umask:-$(umask)}"
        [ ! -e "$job/stop" ] || exit 143 # lab stop ends what it finds, and this process is there by now
        # these may set variables that this script uses, too: from here on only the arguments are its own
        eval "$entered
${brought:-}"
        LAB_BASH_ENV=${BASH_ENV:-} LAB_PATHS=${PYTHONPATH:+:$PYTHONPATH}
        until [ "$1" = -- ]; do
            export "${1?}"
            shift
        done
        shift
        PATH=$VIRTUAL_ENV/bin:$PATH
        PYTHONPATH=$PYTHONPATH$LAB_PATHS
        BASH_ENV=$LAB_JOB_FOLDER/login_shell.bash
        export PATH LAB_BASH_ENV BASH_ENV
        exec "$@"
    )
    end $?
}
