# Creates what the project needs beside its code: folders, environment, kernel. Variables: project,
# plain (NO_COLOR of the laptop). Prints the table of bootstrap.py.
# Needs: places.sh tmux.sh environment.sh enter_machine.sh runner_scripts.sh

work=$folder/work
make_lock_file "$folder/envs/.lock"
make_lock_file "$ours/gpus.lock"
for path in "$folder/runs" "$folder/jobs" "$data"; do
    mkdir -p "$path" || fail "$path cannot be created on $hostname: see $lab doctor."
done
[ "$(tmux_conf)" = "$(cat "$folder/tmux.conf" 2>/dev/null)" ] || tmux_conf >"$folder/tmux.conf" ||
    fail "the disk of $hostname is full."
write_scripts
cd "$work/$project" || fail "there is no $work/$project on $hostname."
# notebooks in the working copy use the data and runs of the jobs
settings="# Where this machine keeps things; lab setup writes this, but not with a line of yours in it.
[here]
data = \"$data\"
runs = \"$folder/runs\""
if ! [ -e machines.local.toml ] ||
    { grep -q 'lab setup writes this' machines.local.toml && [ "$(wc -l <machines.local.toml)" = 4 ]; }; then
    [ "$settings" = "$(cat machines.local.toml 2>/dev/null)" ] || printf '%s\n' "$settings" >machines.local.toml
fi
# one of uv's progress bars has colours in spite of NO_COLOR
if [ -n "$plain" ]; then export NO_COLOR="$plain" UV_NO_PROGRESS=1; fi
find_environment .
exec 8>&2 2>&1 # what the prelude prints is shown
enter_machine "$scripts_folder"
entered=$?
exec 2>&8 8>&-
[ $entered = 0 ] || fail "$prelude_says"
exec 7>>"$folder/envs/.lock"
flock 7
python_is_new_enough || has uv ||
    fail "$hostname has neither Python 3.8 nor uv: install one of them, for instance uv into ~/.local/bin."
(bootstrap . --no-git) 2>&1 || exit 1
# a path that stays the same, for the interpreter in editors
if [ -L .venv ] || ! [ -e .venv ]; then ln -sfn "$environment" .venv; fi
