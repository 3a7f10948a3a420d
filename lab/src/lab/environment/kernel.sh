# Run the kernel command of the lab on the machine. Variables: project, action (list, remove). The
# list is JSON.

cd "$folder/work/$project" 2>/dev/null && [ -x .venv/bin/python ] ||
    fail "the project is not on $hostname yet: $lab setup."
set -- "$action"
[ "$action" != list ] || set -- list --json
.venv/bin/python -m lab.cli kernel "$@"
