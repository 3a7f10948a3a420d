# Opens a shell in the working copy, with the environment active and what machines.toml gives to jobs; in tmux, so
# that it stays.
# Variables: project, term, owner (each user has a shell of their own), exports, given (the names of the
# variables that --env sets; "": none), and those of runner_scripts.sh.
# Needs: folders.sh tmux.sh runner_scripts.sh enter_machine.sh shell_file.sh

session=$(session_name shell)
if has tmux && (our_tmux has-session -t "=$session") 2>/dev/null; then
    [ -z "$given" ] ||
        fail "your shell on $hostname is already open, with the variables of its start: $lab shell without --env, then export them there."
    choose_terminal
    our_tmux attach-session -t "=$session"
fi
write_shell
if ! has tmux; then
    echo "$hostname has no tmux: this shell ends with the connection." >&2
    exec sh "$opens" -i
fi
opening="exec sh $(quoted "$opens")"
# windows that are opened in it later have the environment, too
our_tmux new-session -A -s "$session" "$opening" ';' set-option default-command "$opening"
