# What every script on the machine begins with: PATH, the project's folder, and how it fails.
set -u
PATH=$HOME/.local/bin:$HOME/.cargo/bin:$PATH # a shell that ssh starts has neither
export PATH
unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
case $folder in /*) ;; *) folder=$HOME/$folder ;; esac
read -r hostname </proc/sys/kernel/hostname

fail() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

# make_lock_file FILE: fails in plain words if it cannot be written; exec would end sh with its own
make_lock_file() {
    mkdir -p "${1%/*}" && true >>"$1" || fail "${1%/*} cannot be written on $hostname: see $lab doctor."
}

has() { command -v "$1" >/dev/null 2>&1; }
