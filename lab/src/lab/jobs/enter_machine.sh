# Applies env and prelude of machines.toml, for a job and for what creates its environment. Variables: exports,
# prelude (its lines, quoted).

# enter_machine FOLDER: exports the variables and runs the prelude; FOLDER has the runner's scripts. If a line of the
# prelude fails, it sets prelude_says and fails. What the lines print goes to stderr.
enter_machine() {
    eval "$exports"
    [ -n "$prelude" ] || return 0
    mark="lab-$$-$(date +%s)"
    entered=$(
        eval "set -- \"$1\" $prelude"
        script=$1/machine_prelude.bash
        shift
        # what the profile has left running may keep the pipe open
        { bash -l "$script" "$mark" "$@" 3>&1 >&2 </dev/null; } | sed "/^$mark /q"
    )
    case ${entered##*"$mark "} in
    entered) ;;
    failed*)
        prelude_says="the prelude of machines.toml failed on $hostname: ${entered##*"$mark failed "}"
        return 1
        ;;
    *)
        prelude_says="bash on $hostname ended before the prelude of machines.toml: check its ~/.bash_profile."
        return 1
        ;;
    esac
    eval "${entered%"$mark entered"}"
    eval "$exports"
    # the profile may have removed these folders from PATH
    PATH=$PATH:$HOME/.local/bin:$HOME/.cargo/bin
}
