# Creates what the project needs beside its code: folders, environment, kernel. Variables: project, plain (NO_COLOR of
# this user's computer), brought (yes: the wheels have just been brought). Prints the table of bootstrap.py.
# Exit code 77: the package index does not answer, and the environment needs wheels that are not there.
# Needs: folders.sh tmux.sh environment.sh room.sh enter_machine.sh runner_scripts.sh

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
# one of uv's progress bars has colors in spite of NO_COLOR
if [ -n "$plain" ]; then export NO_COLOR="$plain" UV_NO_PROGRESS=1; fi
find_environment .
exec 8>&2 2>&1 # what the prelude prints is shown
run_prelude "$scripts_folder"
code=$?
exec 2>&8 8>&-
[ $code = 0 ] || fail "$prelude_says"
# what follows needs these variables; those that this script uses keep their values
set -- "$entered" "$folder" "$hostname" "$lab" "$python" "$environment" "$lock_file" "$brought" "${default_index:-}"
eval "$entered"
entered=$1 folder=$2 hostname=$3 lab=$4 python=$5 environment=$6 lock_file=$7 brought=$8 default_index=$9
exec 7>>"$folder/envs/.lock"
flock 7
python_is_new_enough || has uv ||
    fail "$hostname has neither Python 3.8 nor uv: install one of them; curl -LsSf https://astral.sh/uv/install.sh | sh" \
        "needs no root, and uv brings a Python."
if ! environment_ready; then # uv would fail in the middle, and say less
    [ "$(programs_start)" != no ] ||
        fail "the disk of $folder on $hostname is mounted noexec, so no program starts in it: choose another folder in machines.toml."
    torch=no
    grep -q '^torch==' "$lock_file" && torch=yes
    needed=$(($(room_needed $torch) / 1024))
    free=$(df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1024) }')
    room="$free MiB are free on the disk of $folder on $hostname, and an environment needs about $needed"
    [ "${free:-$needed}" -ge $((needed / 4)) ] || fail "$room: make room, or choose another folder in machines.toml."
    [ "${free:-$needed}" -ge $needed ] || echo "  $room"
    case $(uv_cache 2>/dev/null) in
    *other) echo "  uv's cache is on another disk, so the environment is copied whole: see $lab doctor" ;;
    esac
fi
if ! environment_ready && [ -z "$brought" ]; then
    if index=$(index_answers) || [ $? = 2 ]; then
        rm -f "$folder/wheels/only"
    else
        mkdir -p "$folder/wheels" && true >"$folder/wheels/only"
        echo "  $index does not answer from $hostname"
        PATH=$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/dl-remote-template/uv/bin
        build=cpython-$python-linux-$(uname -m)-gnu # what uv calls it
        # without a network there is none to download, and uv finds one that it has downloaded
        has "python$python" || python3 -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$python" ||
            UV_OFFLINE=1 uv python find "$python" >/dev/null ||
            fail "there is no Python $python on $hostname, and none can be downloaded there: on your computer" \
                "run uv python install --install-dir py $build, copy what is in py/*/ to ~/.local/ on" \
                "$hostname, and run $lab setup again."
        # often uv's cache, or a folder that pip.conf names, has everything; who sees uv's progress sees why it has not
        echo "  trying with what is on $hostname"
        if [ -t 2 ]; then exec 6>&2; else exec 6>/dev/null; fi
        (export PIP_RETRIES=0 PIP_DEFAULT_TIMEOUT=5; bootstrap . --no-git --no-kernel) >/dev/null 2>&6 || exit 77
    fi
fi
(bootstrap . --no-git) 2>&1 || exit 1
# a path that stays the same, for the interpreter in editors
if [ -L .venv ] || ! [ -e .venv ]; then ln -sfn "$environment" .venv; fi
