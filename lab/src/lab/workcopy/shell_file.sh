# The shell in a working copy, as a file that any terminal can run. After folders.sh, tmux.sh, runner_scripts.sh and
# enter_machine.sh.

# write_shell: writes the file and sets opens to its path. It enters what machines.toml gives to jobs, activates the
# environment, and becomes the user's shell with its own arguments. It is a file, as everybody can see the arguments of a
# process. The shell is not a login shell, whose profile would put the system's Python first again
write_shell() {
    cd "$folder/work/$project" 2>/dev/null || fail "the project is not on $hostname yet: $lab setup."
    [ -z "$prelude" ] || write_scripts
    choose_terminal
    mkdir -p "$ours"
    opens=$ours/$(session_name open)
    {
        for name in PATH folder hostname scripts_folder exports prelude; do
            eval "printf '%s=%s\n' $name \"\$(quoted \"\${$name:-}\")\""
        done
        [ -z "$prelude" ] || cat "$scripts_folder/enter_machine.sh"
        [ -n "$prelude" ] || echo 'run_prelude() { entered=$exports; }'
        printf 'umask %s\n' "${login_umask:-$(umask)}" # that of our tmux is another
        # shellcheck disable=SC2016  # they are variables of the file
        printf '%s\n' 'run_prelude "$scripts_folder" || printf "lab: %s\n" "$prelude_says" >&2' 'eval "$entered"'
        printf 'export VIRTUAL_ENV=%s PATH=%s:"$PATH"\n' "$(quoted "$PWD/.venv")" "$(quoted "$PWD/.venv/bin")"
        printf 'export LAB_RUNS=%s LAB_DATA=%s\n' "$(quoted "$folder/runs")" "$(quoted "$data")"
        printf 'exec "${SHELL:-/bin/sh}" "$@"\n'
    } >"$opens.new" && mv "$opens.new" "$opens" || fail "$ours cannot be written on $hostname: is the disk full?"
}
