# Starts this project's JupyterLab, reuses the one that runs, or ends it.
# Variables: project, owner (each user has a server of their own), action (start or stop), tcp (yes: sshd on this machine
# forwards no sockets), exports, given (the names of the variables that --env sets; "": none), program (the text of
# notebook_server.py, which does the work and prints the answer), and those of runner_scripts.sh.
# Needs: folders.sh tmux.sh runner_scripts.sh enter_machine.sh

cd "$folder/work/$project" 2>/dev/null && [ -e .venv/bin/python ] ||
    fail "the project is not on $hostname yet: $lab setup."
[ -x .venv/bin/jupyter-lab ] || # importing it would take as long as starting it
    fail "there is no JupyterLab in the environment on $hostname: $lab setup."
mkdir -p "$ours"
chmod 700 "$ours" # the terminal below shows the token, and older versions of tmux check no user
own=$ours/j$(checksum_of "$hostname:$folder $owner") # a short path, for its sockets
session=$(session_name notebook)
# not as a file: the one in work/ may be of another version
(
    entered=''
    if [ "$action" = start ]; then # the kernels have what jobs have
        [ -z "$prelude" ] || write_scripts
        run_prelude "${scripts_folder:-}" || fail "$prelude_says"
    fi
    umask "${login_umask:-$(umask)}" # the kernels are the user's
    set -- "$action" "$own" "$folder" "$data" "$tcp" "$given" "$lab"
    printf '%s\n' "$program" | (eval "$entered" && exec .venv/bin/python -I - "$@")
) || exit 1
has tmux || exit 0 # tmux shows the messages; Jupyter itself does not need it
if [ "$action" = stop ]; then
    (our_tmux kill-session -t "=$session") 2>/dev/null
else
    (our_tmux new-session -d -s "$session" "exec tail -n 1000 -F $(quoted "$own/log")") 2>/dev/null
fi
exit 0
