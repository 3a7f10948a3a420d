# What every script begins with on the machine: where things are, and how it fails.
set -u
PATH=$HOME/.local/bin:$HOME/.cargo/bin:$PATH # a shell that ssh starts has neither
export PATH
unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
case $folder in /*) ;; *) folder=$HOME/$folder ;; esac
case $data in
'') data=$folder/data ;;
'~/'*) data=$HOME/${data#'~/'} ;;
/*) ;;
*) data=$HOME/$data ;;
esac
ours=$HOME/.cache/dl-remote-template # what is no single project's: locks, reserved GPUs, tmux
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime)
here=$(hostname)

fail() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# git without the user's hooks, which might do anything, and with nothing left in the background
quiet_git() {
    git -c core.hooksPath=/dev/null -c gc.auto=0 -c maintenance.auto=false \
        -c checkout.workers=0 -c advice.detachedHead=false "$@"
}

# started PID: prints when the process started, in the kernel's ticks; fails if there is none
started() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    case $1 in Z | X) return 1 ;; esac
    shift 19
    printf '%s\n' "$1"
}
