# Reads what env and prelude of machines.toml give to a job and to what creates its environment. Variables: exports,
# prelude (its lines, quoted).

# run_prelude FOLDER: sets entered: lines of sh that export the variables. They may set variables that scripts of lab use,
# too, so the last to do before a command of the user's is to evaluate them. FOLDER has the runner's scripts. If a line of
# the prelude fails, it sets prelude_says and fails. What the lines print goes to stderr.
run_prelude() {
    entered=$exports
    [ -n "$prelude" ] || return 0
    mark="lab-$$-$(date +%s)"
    said=$(
        eval "set -- \"\$1/machine_prelude.bash\" \"\$mark\" $prelude"
        # what the profile has left running may keep the pipe open
        { (eval "$exports" && exec bash -l "$@") 3>&1 >&2 </dev/null; } | sed "/^$mark /q"
    )
    case ${said##*"$mark "} in
    entered) ;;
    failed*)
        prelude_says="the prelude of machines.toml failed on $hostname: ${said##*"$mark failed "}"
        return 1
        ;;
    *)
        prelude_says="bash on $hostname ended before the prelude of machines.toml: check its ~/.bash_profile."
        return 1
        ;;
    esac
    # the profile may have removed these folders from PATH
    entered="${said%"$mark entered"}
$exports
PATH=\$PATH:\$HOME/.local/bin:\$HOME/.cargo/bin"
}

python_is_new_enough() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; }

# bootstrap PROJECT OPTION ...: replaces the shell by its bootstrap.py, run by the machine's Python or else by uv, after
# run_prelude
bootstrap() {
    script=$1/bootstrap.py
    shift
    set -- "$folder/wheels" "$python" "$script" --venv "$environment" "$@"
    eval "$entered"
    if [ -e "$1/only" ]; then # no package index answers: what lab setup brought is all there is
        export UV_OFFLINE=1
        for wheel in "$1"/*.whl; do
            if [ -e "$wheel" ]; then export UV_FIND_LINKS="$1${UV_FIND_LINKS:+,$UV_FIND_LINKS}"; fi
            break
        done
    fi
    shift
    python_is_new_enough || exec uv run --no-project --python "$@"
    shift
    exec python3 "$@"
}
