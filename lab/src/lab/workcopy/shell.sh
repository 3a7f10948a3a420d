# Opens a shell in the working copy, with the environment active and what machines.toml gives to jobs; in tmux, so
# that it stays.
# Variables: project, term, owner (whose shell it is: nobody else's is opened), exports, given (yes: they have some that
# machines.toml does not give), and those of runner_scripts.sh.
# Needs: places.sh tmux.sh runner_scripts.sh enter_machine.sh

cd "$folder/work/$project" 2>/dev/null || fail "the project is not on $hostname yet: $lab setup."
[ -z "$prelude" ] || write_scripts
choose_terminal
session=$(session_name shell)
if [ -n "$given" ] && has tmux && (our_tmux has-session -t "=$session") 2>/dev/null; then
    fail "your shell on $hostname is open already, and has the variables of its start: $lab shell without --env, then export them there."
fi
# a file, as everybody sees the arguments of a process; the shell is no login shell, as its profile would put the
# system's Python first again
mkdir -p "$ours"
opens=$ours/$(session_name open)
{
    for name in PATH folder hostname scripts_folder exports prelude; do
        eval "printf '%s=%s\n' $name \"\$(quoted \"\${$name:-}\")\""
    done
    [ -z "$prelude" ] || cat "$scripts_folder/enter_machine.sh"
    [ -n "$prelude" ] || echo 'enter_machine() { eval "$exports"; }'
    printf 'umask %s\n' "${login_umask:-$(umask)}" # that of our tmux is another
    # shellcheck disable=SC2016  # they are variables of the file
    printf '%s\n' 'enter_machine "$scripts_folder" || printf "lab: %s\n" "$prelude_says" >&2'
    printf 'export VIRTUAL_ENV=%s PATH=%s:"$PATH"\n' "$(quoted "$PWD/.venv")" "$(quoted "$PWD/.venv/bin")"
    printf 'export LAB_RUNS=%s LAB_DATA=%s\n' "$(quoted "$folder/runs")" "$(quoted "$data")"
    printf 'exec "${SHELL:-/bin/sh}" "$@"\n'
} >"$opens.new" && mv "$opens.new" "$opens" || fail "$ours cannot be written on $hostname: is the disk full?"
if ! has tmux; then
    echo "$hostname has no tmux: this shell ends with the connection." >&2
    exec sh "$opens" -i
fi
our_tmux new-session -A -s "$session" "exec sh $(quoted "$opens")"
