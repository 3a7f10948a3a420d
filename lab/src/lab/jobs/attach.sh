# Shows a job in this terminal. Variables: id, term, format (of the jobs that this lab knows).
# Needs: folders.sh known_job.sh tmux.sh

job=$folder/jobs/$id
require_known_job
choose_terminal
[ -e "$job/exit_code" ] && exec sh "$job/view.sh"
if (has tmux && our_tmux has-session -t "=job-$id") 2>/dev/null ||
    tmux_session "sh $(quoted "$job/view.sh")"; then
    our_tmux attach-session -t "=job-$id"
fi
echo "without tmux: $tmux_says Close this window to leave; the job continues." >&2
exec sh "$job/view.sh"
