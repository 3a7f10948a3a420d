#!/bin/sh
# Make the template's own environment on a fresh Debian or Ubuntu (or any) machine: prepare.sh PYTHON DIR
set -eu
python=$1
environment=$2

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    # Debian keeps venv in a package of its own
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null
    else
        echo "python3-venv is missing: sudo apt-get install python3-venv, then make again" >&2
        exit 1
    fi
fi
"$python" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet 'uv>=0.9'
# uv does not read pip's settings; where wheels come from is told to it by name
if [ -n "${PIP_FIND_LINKS:-}" ] && [ -z "${UV_FIND_LINKS:-}" ]; then
    UV_FIND_LINKS=$PIP_FIND_LINKS
    export UV_FIND_LINKS
fi
"$environment/bin/uv" pip install --quiet --python "$environment" --group test
