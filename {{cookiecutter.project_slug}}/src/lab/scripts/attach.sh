# Shows a job in this terminal. Variables: id, term.
# Needs: places.sh tmux.sh

job=$folder/jobs/$id
[ -e "$job/job.json" ] || fail "there is no job $id on $here."
known_terminal
[ -e "$job/exit_code" ] && exec sh "$job/view.sh"
if has tmux && tmux -S "$tmux_socket" has-session -t "=job-$id" 2>/dev/null; then
    exec tmux -S "$tmux_socket" attach-session -t "=job-$id"
fi
tmux_session "sh $(quoted "$job/view.sh")" && exec tmux -S "$tmux_socket" attach-session -t "=job-$id"
echo "without tmux: $tmux_says Close this window to leave; the job goes on." >&2
exec sh "$job/view.sh"
