# Makes a job and starts its runner, once, however often it is asked. Standard input: a bundle.
# Variables: id, commit, sent, project (its folder in the commit), spec (job.json), settings (job.sh),
# interactive, and those of runner_scripts.sh. Prints how the job stands, as list.sh does.
# Needs: places.sh code.sh jobs.sh tmux.sh runner_scripts.sh

job=$folder/jobs/$id
lock_file "$folder/jobs/.lock"
lock_file "$ours/gpus.lock"
has flock || fail "$here has no flock; it comes with util-linux."
[ -z "$interactive" ] || has script ||
    fail "$here has no script, which keeps what an interactive job shows: install util-linux (Debian: bsdutils)."
exec 9>>"$folder/jobs/.lock"
flock -w 100 9 || fail "somebody else has been starting a job for long: try again."

remove_job() {
    rm -rf "$job"
    quiet_git -C "$repo" worktree prune
}
undo() { # WHY
    remove_job
    fail "$1"
}

if ! [ -e "$job/job.json" ]; then
    bring_scripts
    take_commit
    remove_job # what an attempt that was broken off left
    mkdir "$job" || fail "$job cannot be made on $here."
    said=$(quiet_git -C "$repo" worktree add --quiet --detach "$job/code" "$commit" 2>&1) ||
        undo "the job cannot be started on $here: $(cause "$said")"
    # the last line of a job is written over this one: it has its place even on a full disk
    { printf '%-40s\n' '' >"$job/exit_code.new"; } 2>/dev/null &&
        : >"$job/output.log" &&
        printf '%s\n' "$settings" "folder=$(quoted "$folder")" "data=$(quoted "$data")" \
            "ours=$(quoted "$ours")" "here=$(quoted "$here")" \
            >"$job/job.sh" &&
        cp "$scripts_folder"/*.sh "$job/" &&
        printf '%s\n' "$spec" >"$job/job.json.new" ||
        undo "the job cannot be started on $here: is its disk full?"
    mv "$job/job.json.new" "$job/job.json"
fi

if ! [ -e "$job/once" ]; then
    if [ -n "$interactive" ]; then
        tmux_session "sh $(quoted "$job/runner.sh") terminal" || undo "$tmux_says"
    else
        # its own session: it outlives this connection, tmux, and a Ctrl-C elsewhere
        setsid -f sh "$job/runner.sh" <"/dev/null" >>"$job/output.log" 2>&1 9>&-
    fi
    # until the runner has said how it stands; nvidia-smi may take its time, three times
    tries=0
    until [ -e "$job/pid" ] && { [ -s "$job/phase" ] || [ -e "$job/exit_code" ]; }; do
        tries=$((tries + 1))
        if [ $tries = 1200 ]; then
            true >"$job/stop" # nor will it later
            fail "job $id was made on $here, but does not start: $lab logs $id."
        fi
        sleep 0.05
    done
    if [ -e "$job/refused" ]; then
        undo "$(cat "$job/refused")"
    fi
    [ -n "$interactive" ] || tmux_session "sh $(quoted "$job/view.sh")" || :
fi
date +%s
describe "$job"
