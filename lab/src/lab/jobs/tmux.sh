# lab's own tmux server, and terminals; after folders.sh.

quoted() { # TEXT: prints it quoted for a shell
    printf "'"
    case $1 in
    *"'"*) printf %s "$1" | sed "s/'/'\\\\''/g" ;;
    *) printf %s "$1" ;;
    esac
    printf "'"
}

# our_tmux ARGUMENT ...: replaces the shell by tmux on our server
our_tmux() {
    [ -d "$ours" ] || mkdir -p "$ours"
    [ -e "$folder/tmux.conf" ] || tmux_conf >"$folder/tmux.conf"
    # not in /tmp, where cleaners remove sockets; with the machine's name, as homes are shared
    exec tmux -S "$ours/tmux-$hostname" -f "$folder/tmux.conf" "$@"
}

# checksum_of TEXT: prints a number
checksum_of() { printf %s "$1" | cksum | cut -d ' ' -f 1; }

# session_name KIND: prints the name of $owner's session in the project. tmux interprets some characters, such as a
# command in #(...); the checksum tells folders with the same last part apart.
session_name() { printf '%s-%s-%s' "$1" "$(printf %s "${folder##*/}" | tr -c A-Za-z0-9_- _)" "$(checksum_of "$folder $owner")"; }

# tmux_session COMMAND: starts it in a tmux session for the job; sets tmux_says if that fails
tmux_session() {
    tmux_says="$hostname has no tmux, which keeps a terminal alive: install it."
    has tmux || return 1
    tmux_says=$(our_tmux new-session -d -s "job-$id" "exec $1" 2>&1 9>&-) && return
    tmux_says="tmux on $hostname: $tmux_says"
    return 1
}

tmux_conf() {
    printf '%s\n' \
        '# tmux for the jobs and shells of this project; a server of its own.' \
        'set -g mouse on' \
        'set -g history-limit 100000' \
        'set -g default-terminal screen-256color' \
        'set -g status-left "#S "' \
        'set -g status-left-length 40' \
        'set -sg escape-time 10'
}

# choose_terminal: sets TERM to a terminal that this machine knows
choose_terminal() {
    TERM=$term
    export TERM
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm-256color
    infocmp "$TERM" >/dev/null 2>&1 || TERM=xterm
}
