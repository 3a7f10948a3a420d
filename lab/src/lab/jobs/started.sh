# Starts a job's runner, and waits until the job runs, waits or is refused. Variables: job, interactive,
# and those of code.sh.

remove_job() {
    rm -rf "$job"
    quiet_git -C "$repo" worktree prune
}
undo() { # WHY
    remove_job
    fail "$1"
}

start_runner() {
    if [ -n "$interactive" ]; then
        tmux_session "sh $(quoted "$job/runner.sh") terminal" || undo "$tmux_says"
    else
        # a session of its own outlives this connection, tmux, and a Ctrl-C elsewhere
        setsid -f sh "$job/runner.sh" <"/dev/null" >>"$job/output.log" 2>&1 9>&-
    fi
}

# await_start: until the runner has written its phase; nvidia-smi, which it calls three times, may be slow
await_start() {
    tries=0 pause=0.01
    until [ -e "$job/pid" ] && { [ -s "$job/phase" ] || [ -e "$job/exit_code" ]; }; do
        tries=$((tries + 1))
        if [ $tries = 20 ]; then pause=0.05; fi
        if [ $tries = 1200 ]; then
            true >"$job/stop" # it must not start later
            fail "job $id was created on $hostname, but does not start: see $lab logs $id."
        fi
        sleep $pause
    done
    if [ -e "$job/refused" ]; then
        why=$(cat "$job/refused")
        remove_job
        printf 'lab: %s\n' "$why" >&2
        exit 77 # nothing is left of it, so another machine may take it
    fi
    # a job that waits for its secrets may still be refused
    [ -n "$interactive" ] || [ -p "$job/secrets" ] || tmux_session "sh $(quoted "$job/view.sh")" || :
}
