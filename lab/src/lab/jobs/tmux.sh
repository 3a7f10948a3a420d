# Our own tmux server, and terminals; after places.sh.

quoted() { # for a command line that a shell reads once more
    printf "'"
    printf %s "$1" | sed "s/'/'\\\\''/g"
    printf "'"
}

# our_tmux ARGUMENT ...: becomes tmux on our own server
our_tmux() {
    mkdir -p "$ours"
    [ -e "$folder/tmux.conf" ] || tmux_conf >"$folder/tmux.conf"
    # the socket is not in /tmp, where cleaners remove it, and is named, as homes are shared
    exec tmux -S "$ours/tmux-$here" -f "$folder/tmux.conf" "$@"
}

# number_of TEXT: one that hardly any other text has
number_of() { printf %s "$1" | cksum | cut -d ' ' -f 1; }

# session_name KIND: that of the project's session for it. In other letters tmux sees more than a name,
# such as a command in #(...); and the folders of two projects may end alike.
session_name() { printf '%s-%s-%s' "$1" "$(printf %s "${folder##*/}" | tr -c A-Za-z0-9_- _)" "$(number_of "$folder")"; }

# tmux_session COMMAND: the job's session, with that command in it; tmux_says tells what went wrong
tmux_session() {
    tmux_says="$here has no tmux, which keeps a terminal alive there: install it."
    has tmux || return 1
    tmux_says=$(our_tmux new-session -d -s "job-$id" "exec $1" 2>&1 9>&-) && return
    tmux_says="tmux on $here: $tmux_says"
    return 1
}

tmux_conf() {
    printf '%s\n' \
        '# tmux for the jobs and shells of this project; a server of its own, which no other sees.' \
        'set -g mouse on' \
        'set -g history-limit 100000' \
        'set -g default-terminal screen-256color' \
        'set -g status-left "#S "' \
        'set -g status-left-length 40' \
        'set -sg escape-time 10'
}

# known_terminal: TERM is set, to one that this machine knows how to draw on
known_terminal() {
    TERM=$term
    export TERM
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm-256color
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm
}
