# Runs lab's kernel command on the machine. Variables: project, action (list or remove). The list is JSON.

cd "$folder/work/$project" 2>/dev/null && [ -x .venv/bin/python ] ||
    fail "the project is not on $hostname yet: $lab setup."
set -- "$action"
[ "$action" != list ] || set -- list --json
.venv/bin/python -m lab.cli kernel "$@"
