# The environment of a project's lock, for setup.sh, runner.sh and facts.sh. Variables: folder, default_index (of pip).

# setting PROJECT NAME: prints a text setting in [tool.lab] of its pyproject.toml
setting() { sed -n "/^\[tool\.lab\]/,/^\[/s/^$2 = \"\([^\"]*\)\".*/\1/p" "$1/pyproject.toml" | head -n 1; }

# find_environment PROJECT: sets lock_file, python and environment, from its pyproject.toml and its lock
find_environment() {
    lock_file=$(setting "$1" lock)
    lock_file=${lock_file:-requirements.txt}
    lock=$(sha256sum <"$1/$lock_file")
    lock=$(printf %.12s "$lock")
    python=$(setting "$1" python)
    environment=$folder/envs/$python-$lock
}

# environment_ready: is it complete? It uses the machine's Python, which an upgrade may have removed
environment_ready() { [ -e "$environment/lab-environment.json" ] && [ -x "$environment/bin/python" ]; }

# index_answers: prints the package index of uv and pip on this machine; fails if it does not answer, with 2 if no
# program can ask. A refusal is an answer
index_answers() {
    index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-}}}
    [ -n "$index" ] || index=$(cat "$HOME/.config/uv/uv.toml" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" \
        /etc/pip.conf 2>/dev/null | sed -n 's/^ *\(index-\)\{0,1\}url *= *"\{0,1\}\([^" ]*\).*/\2/p' | head -n 1)
    index=${index:-${default_index:-}}
    [ -n "$index" ] || return 2
    # without a password in it
    printf '%s\n' "$index" | sed 's|//[^/]*@|//|'
    case $index in http*) ;; *) return 0 ;; esac
    if command -v curl >/dev/null; then
        curl -s -o /dev/null -m 6 "${index%/}/pip/"
    else
        command -v python3 >/dev/null || return 2
        # shellcheck disable=SC2046  # two words or none
        $(command -v timeout >/dev/null && echo timeout 8) python3 -c 'import sys, urllib.error, urllib.request
try: urllib.request.urlopen(sys.argv[1], timeout=6)
except urllib.error.HTTPError: pass' "${index%/}/pip/" 2>/dev/null
    fi
}
