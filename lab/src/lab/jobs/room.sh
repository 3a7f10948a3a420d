# Whether an environment can be made and used in the project's folder: for setup.sh and facts.sh.

# nearest PATH: prints it, or its nearest parent that exists
nearest() {
    path=$1
    until [ -e "$path" ] || [ "$path" = / ]; do path=$(dirname "$path"); done
    printf '%s\n' "$path"
}

# programs_start: prints yes, or no if the disk is mounted noexec; nothing if the folder cannot be written
programs_start() {
    probe=$(mktemp "$(nearest "$folder")/.lab-doctor.XXXXXX") || return
    printf '#!/bin/sh\n' >"$probe"
    chmod 700 "$probe"
    if "$probe"; then echo yes; else echo no; fi
    rm -f "$probe"
}

# uv_cache: prints its folder, then "same" if it is on the disk of the project's folder, else "other"
uv_cache() {
    PATH=$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/dl-remote-template/uv/bin
    cache=$(uv cache dir) || cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
    echo "$cache"
    if [ "$(stat -c %d "$(nearest "$cache")")" = "$(stat -c %d "$(nearest "$folder")")" ]; then echo same; else echo other; fi
}

# room_needed TORCH: prints about how many kilobytes an environment takes; TORCH is yes if it has torch
room_needed() {
    if [ "$1" != yes ]; then
        echo 300000
    elif has nvidia-smi; then
        echo 8000000
    else
        echo 2000000
    fi
}
