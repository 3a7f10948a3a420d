# What lab doctor asks a machine: prints each fact as "name:" and its lines, indented, below.
# Variables: environment (its name in envs/), torch (yes: it is in the lock), dataset, term. The clock comes first, at once. Every
# question has its own time-out and its own shell, so that none of them spoils another.
# Comments stand on lines of their own, which are not sent: all of this has to fit into one packet.
# Needs: folders.sh environment.sh gpus.sh room.sh

# the script's own variables keep their values
set -- "$folder" "$data" "$ours" "$hostname" "$environment" "$torch" "$dataset" "$term" "${default_index:-}"
eval "$exports"
folder=$1 data=$2 ours=$3 hostname=$4 environment=$5 torch=$6 dataset=$7 term=$8 default_index=$9

printf 'clock:\n %s\n' "$(date +%s.%N)"

# fact NAME COMMAND ...: what the command prints is the fact
fact() {
    printf '%s:\n' "$1"
    shift
    ("$@") 2>/dev/null </dev/null | sed 's/^/ /;200q'
}

# version PROGRAM OPTION: the version, "missing" or "broken"
version() {
    if ! has "$1"; then
        echo missing
    elif output=$(limit 5 "$@" 2>&1); then
        echo "$output"
    else
        echo broken
    fi
}
# uv_version: the last folder is where bootstrap.py puts uv if there is none
uv_version() {
    PATH=$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/dl-remote-template/uv/bin
    version uv --version
}

# write_to FOLDER: writes a file and removes it, as nothing else shows every permission and quota
write_to() {
    probe=$(limit 8 env LC_ALL=C mktemp "$1/.lab-doctor.XXXXXX") || return
    limit 8 env LC_ALL=C dd if=/dev/zero of="$probe" bs=64k count=1 conv=fsync
    result=$?
    rm -f "$probe"
    return $result
}

# disk FOLDER ...: kilobytes in all and free, inodes in all and free on the disk of the first; then whether
# each of them can be written
disk() {
    path=$(nearest "$1")
    limit 8 df -Pk "$path" | awk 'NR == 2 { print $2, $4 }'
    limit 8 df -Pi "$path" | awk 'NR == 2 { print $2, $4 }'
    for path; do
        path=$(nearest "$path")
        output=$(write_to "$path" 2>&1) && continue
        output=$(printf '%s\n' "$output" | sed -n -e 's/^dd: .*: //p' -e 's/^mktemp: .*: //p')
        echo "not writable: $path${output:+ ($output)}"
        return
    done
    echo writable
}

# gpus: the state; if that is ok, also "gpu" with what list_gpus prints of each, and "cuda" with a version
gpus() {
    if ! has nvidia-smi; then
        # a card whose driver is incomplete still shows up here
        if [ -e /proc/driver/nvidia/version ]; then echo "broken nvidia-smi is missing"; else echo none; fi
        return
    fi
    output=$(list_gpus)
    case $? in
    0) echo ok ;;
    124 | 137) echo hung && return ;;
    *) echo "broken $(echo "$output" | head -n 1)" && return ;;
    esac
    echo "$output" | sed 's/^/gpu /'
    limit 8 nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/cuda \1/p'
}

torch_build() {
    grep -hE '^(__version__|cuda|hip)\b' "$environment"/lib/python*/site-packages/torch/version.py
}

# logout: whether logind kills what is left running, and whether this user lingers
logout() {
    { has loginctl && limit 5 loginctl --no-pager list-users >&2; } || return
    kills=$(limit 5 busctl get-property org.freedesktop.login1 /org/freedesktop/login1 \
        org.freedesktop.login1.Manager KillUserProcesses) ||
        kills=$(limit 5 loginctl show-session --property=KillUserProcesses)
    user=$(id -un)
    lingers=$(limit 5 loginctl show-user "$user" --property=Linger)
    if [ -e "/var/lib/systemd/linger/$user" ]; then lingers=yes; fi
    printf 'kills %s\nlingers %s\n' "$kills" "$lingers"
}

# quotas: a number with a star is used up; the exit code tells whether all of them were asked
quotas() {
    has quota || return
    limit 8 quota -w
    echo "code $?"
}

# files: of the dataset, the hash of its manifest, the number of files and their bytes
files() {
    cd "$data/$dataset" || return
    sha256sum <manifest.json | cut -c 1-12
    {
        limit 8 find -L . -mindepth 1 \( -name '.*' -o -path ./models -o -path ./manifest.json \) -prune \
            -o -type f -exec ls -Lln {} +
        case $? in 124 | 137) echo incomplete ;; esac
    } | awk '/^-/ { n += 1; bytes += $5 } /^incomplete/ { bad = 1 }
        END { if (bad) print "too many to count"; else printf "%d %.0f\n", n, bytes }'
}

# package_index: "yes", "no" or, with nothing to ask by, "?"; and its address
package_index() {
    address=$(index_answers)
    case $? in 0) echo "yes $address" ;; 2) echo "?" ;; *) echo "no $address" ;; esac
}

yes_or_no() { if "$@"; then echo yes; else echo no; fi; }
knows_terminal() {
    has infocmp || return
    if limit 5 infocmp "$term" >&2; then echo yes; else echo no; fi
}
# basics: which of the programs are missing without which no job starts
basics() {
    for name in base64 flock setsid sha256sum tail awk sed; do
        has "$name" || echo "$name"
    done
    echo asked
}

fact host echo "$hostname"
fact system uname -sr
fact folder echo "$folder"
fact data echo "$data"
fact git version git --version
fact tmux version tmux -V
fact script version script --version
fact rsync version rsync --version
fact python3 version python3 --version
fact uv uv_version
fact missing basics
fact work yes_or_no test -e "$folder/work/.git"
environment=$folder/envs/$environment
fact environment yes_or_no environment_ready
fact torch torch_build
fact gpus gpus
fact disk disk "$folder" "$ours"
fact data_disk disk "$data"
fact programs programs_start
fact cache uv_cache
fact needed room_needed "$torch"
fact index package_index
fact quota quotas
fact logout logout
fact terminal knows_terminal
fact dataset files
exit 0
