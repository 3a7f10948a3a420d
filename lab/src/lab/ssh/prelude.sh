# What every script begins with on the machine: PATH, the project's folder, and how it fails.
set -u
PATH=$HOME/.local/bin:$HOME/.cargo/bin:$PATH # a shell that ssh starts has neither
export PATH
unset CDPATH GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
case $folder in /*) ;; *) folder=$HOME/$folder ;; esac
read -r here </proc/sys/kernel/hostname

fail() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

# lock_file FILE: it is there, and can be written; not seen to by exec, at whose failure sh ends with
# words of its own
lock_file() {
    mkdir -p "${1%/*}" && true >>"$1" || fail "${1%/*} cannot be written on $here: see $lab doctor."
}

has() { command -v "$1" >/dev/null 2>&1; }
