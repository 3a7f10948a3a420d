# Creates a job and starts its runner; once, however often it runs. Standard input: a bundle.
# Variables: id, commit, sent, project (its folder in the commit), spec (job.json), settings (job.sh),
# interactive, secrets (yes: secrets.sh brings some), and those of runner_scripts.sh. Prints the job as list.sh does.
# Needs: folders.sh code.sh jobs.sh tmux.sh runner_scripts.sh started.sh

job=$folder/jobs/$id
make_lock_file "$folder/jobs/.lock"
make_lock_file "$ours/gpus.lock"
has flock || fail "$hostname has no flock: install util-linux."
[ -z "$interactive" ] || has script ||
    fail "$hostname has no script, which captures the output of an interactive job: install util-linux (Debian: bsdutils)."
exec 9>>"$folder/jobs/.lock"
flock -w 100 9 || fail "another job is still being started on $hostname: try again."

if ! [ -e "$job/job.json" ]; then
    write_scripts
    take_commit
    [ ! -e "$job" ] || remove_job # what an interrupted attempt left
    { [ -d "$folder/runs" ] || mkdir -p "$folder/runs"; } && mkdir "$job" ||
        fail "$job cannot be created on $hostname."
    # --force, as git may still know the worktree of an interrupted attempt
    said=$(quiet_git -C "$repo" worktree add --force --quiet --detach "$job/code" "$commit" 2>&1) ||
        undo "the job cannot be started on $hostname: $(cause "$said")"
    # the exit code later overwrites this line, so it fits even on a full disk
    { printf '%-40s\n' '' >"$job/exit_code.new"; } 2>/dev/null &&
        : >"$job/output.log" &&
        printf '%s\n' "$settings" "folder=$(quoted "$folder")" "data=$(quoted "$data")" \
            "ours=$(quoted "$ours")" "hostname=$(quoted "$hostname")" \
            "umask=${login_umask:-$(umask)}" \
            >"$job/job.sh" &&
        cp "$scripts_folder"/* "$job/" &&
        { [ -z "$secrets" ] || mkfifo -m 600 "$job/secrets"; } &&
        printf '%s\n' "$spec" >"$job/job.json.new" ||
        undo "the job cannot be started on $hostname: is its disk full?"
    mv "$job/job.json.new" "$job/job.json"
fi

if ! [ -e "$job/once" ]; then
    start_runner
    await_start
fi
date +%s
describe "$job"
