# Opens a shell in the working copy, with the environment active; in tmux, so that it stays.
# Variables: project, term, owner (whose shell it is: nobody else's is opened).
# Needs: places.sh tmux.sh

cd "$folder/work/$project" 2>/dev/null || fail "the project is not on $hostname yet: $lab setup."
choose_terminal
SHELL=${SHELL:-/bin/sh}
# no login shell, as its profile would put the system's Python first again
set -- env "VIRTUAL_ENV=$PWD/.venv" "PATH=$PWD/.venv/bin:$PATH" "LAB_RUNS=$folder/runs" \
    "LAB_DATA=$data" "$SHELL"
umask=${login_umask:-$(umask)}
if ! has tmux; then
    umask "$umask"
    echo "$hostname has no tmux: this shell ends with the connection." >&2
    exec "$@" -i
fi
command="umask $umask; exec" # the umask of our tmux is another
for word; do command="$command $(quoted "$word")"; done
our_tmux new-session -A -s "$(session_name shell)" "$command"
