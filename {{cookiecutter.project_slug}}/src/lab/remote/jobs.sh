# What jobs, tmux and stopping have in common.

quoted() { # for a command line that a shell reads once more
    printf "'"
    printf %s "$1" | sed "s/'/'\\\\''/g"
    printf "'"
}

# describe JOB-FOLDER: its facts, separated by tabs, with job.json last
describe() {
    fact_code='' fact_end='' fact_pid='' fact_boot='' fact_born='' fact_start='' fact_host=''
    fact_phase='' fact_gpus='' alive='' stopped=''
    [ -e "$1/exit_code" ] && read -r fact_code fact_end <"$1/exit_code"
    [ -e "$1/pid" ] && read -r fact_pid fact_boot fact_born fact_start fact_host <"$1/pid"
    [ -e "$1/gpus" ] && read -r fact_gpus <"$1/gpus"
    [ -e "$1/stop" ] && stopped=yes
    if [ -z "$fact_code" ]; then
        [ -e "$1/phase" ] && read -r fact_phase <"$1/phase"
        if [ -z "$fact_pid" ]; then
            alive=never
        elif [ "$fact_boot" = "$boot" ]; then
            [ "$(started "$fact_pid")" = "$fact_born" ] && alive=yes || alive=no
            # the runner may have ended just now
            [ -e "$1/exit_code" ] && read -r fact_code fact_end <"$1/exit_code"
        elif [ "$fact_host" != "$here" ]; then
            alive=elsewhere
        else
            alive=rebooted
        fi
    fi
    read -r spec <"$1/job.json"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${1##*/}" "$fact_code" "$fact_start" "$fact_end" \
        "$alive" "$stopped" "$fact_gpus" "$fact_phase" "$spec"
}

# members ID: the processes of a job, whatever sessions they are in, by the LAB_JOB they inherited
members() {
    grep -lzsx "LAB_JOB=$1" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ member _; do
        [ "$member" != $$ ] && started "$member" >/dev/null && printf '%s\n' "$member"
    done
}

tmux_socket=$ours/tmux-$here # not in /tmp, where cleaners remove it; named, as homes are shared

# tmux_session COMMAND: the job's session, with that command in it; tmux_says tells what went wrong
tmux_session() {
    tmux_says="$here has no tmux, which keeps a terminal alive there: install it."
    has tmux || return 1
    mkdir -p "$ours"
    [ -e "$folder/tmux.conf" ] || tmux_conf >"$folder/tmux.conf"
    tmux_says=$(tmux -S "$tmux_socket" -f "$folder/tmux.conf" new-session -d -s "job-$id" \
        "exec $1" 2>&1 9>&-) && return
    tmux_says="tmux on $here: $tmux_says"
    return 1
}

tmux_conf() {
    cat <<'CONF'
# tmux for the jobs and shells of this project; a server of its own, which no other tmux sees.
set -g mouse on
set -g history-limit 100000
set -g default-terminal screen-256color
set -g status-left "#S "
set -g status-left-length 40
set -sg escape-time 10
CONF
}

# known_terminal: TERM is set, to one that this machine knows how to draw on
known_terminal() {
    TERM=$term
    export TERM
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm-256color
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm
}
