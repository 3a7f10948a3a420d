#!/bin/sh
# Make the environment on a fresh Debian or Ubuntu (or any) machine: prepare.sh PYTHON DIR [hosts]
# With "hosts", what the three test hosts of tests/helpers/hosts need is installed too.
set -eu
python=$1
environment=$2

packages=
# Debian keeps venv in a package of its own
"$python" -c 'import venv, ensurepip' 2>/dev/null || packages=python3-venv
if [ "${3:-}" = hosts ] && command -v apt-get >/dev/null; then
    PATH=$PATH:/usr/sbin:/sbin
    for pair in sshd:openssh-server ssh:openssh-client tmux:tmux rsync:rsync sshfs:sshfs \
        fusermount3:fuse3 ip:iproute2 nsenter:util-linux ps:procps fish:fish tcsh:tcsh zsh:zsh \
        faketime:faketime shellcheck:shellcheck mkfs.btrfs:btrfs-progs curl:curl openssl:openssl slurmctld:slurm-wlm; do
        command -v "${pair%:*}" >/dev/null || packages="$packages ${pair#*:}"
    done
    # playwright's node is linked to it
    ldconfig -p | grep -q libatomic.so.1 || packages="$packages libatomic1"
    # Ubuntu has it only as a snap: there the browser tests are skipped, unless Chrome is installed
    if grep -qs '^ID=debian' /etc/os-release && ! command -v chromium >/dev/null; then
        packages="$packages chromium"
    fi
fi

# With an init system, the package would start a public sshd at once, and again at every boot, which
# the machine's owner has to decide. Elsewhere (a container, CI) one file keeps it from starting.
starts_a_server() {
    case $packages in *openssh-server*) [ -d /run/systemd/system ] ;; *) false ;; esac
}
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! starts_a_server; then
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        apt-get update -qq
        # shellcheck disable=SC2086 # they are words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            $packages >/dev/null
    else
        echo "Programs are missing. Run: sudo apt-get install ${packages# }" >&2
        case $packages in
        *python3-venv*) echo "Then run make again." >&2; exit 1 ;;
        *) echo "Until then, tests with hosts fail (as root) or are skipped." >&2 ;;
        esac
    fi
fi
"$python" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet 'uv>=0.9'
# uv does not read pip's settings, so it needs its own variable
if [ -n "${PIP_FIND_LINKS:-}" ] && [ -z "${UV_FIND_LINKS:-}" ]; then
    UV_FIND_LINKS=$PIP_FIND_LINKS
    export UV_FIND_LINKS
fi
"$environment/bin/uv" pip install --quiet --python "$environment" --group test
