# A shell in the working copy, with the environment active; in tmux, so that it stays.
# Variables: project, term.

cd "$folder/work/$project" 2>/dev/null || fail "the project is not on $here yet: lab setup."
known_terminal
[ -e .venv/bin/activate ] && . ./.venv/bin/activate
LAB_RUNS=$folder/runs LAB_DATA=$data
export LAB_RUNS LAB_DATA
if ! has tmux; then
    echo "$here has no tmux: this shell ends with the connection." >&2
    exec "${SHELL:-sh}" -i
fi
[ -e "$folder/tmux.conf" ] || tmux_conf >"$folder/tmux.conf"
name=$(printf %s "shell-${folder##*/}" | tr '.: ' '___')
exec tmux -S "$tmux_socket" -f "$folder/tmux.conf" new-session -A -s "$name" \
    -e "VIRTUAL_ENV=${VIRTUAL_ENV:-}" -e "PATH=$PATH" -e "LAB_RUNS=$LAB_RUNS" -e "LAB_DATA=$LAB_DATA"
