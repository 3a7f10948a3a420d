"""A fake nvidia-smi for the test hosts: a script that answers the queries lab makes."""

import shlex


def nvidia_smi(gpus, apps=(), driver="550.54", hang=False, broken=False) -> str:
    """Return the script of an nvidia-smi that shows these GPUs and the processes on them.

    `gpus` is a number, or for each GPU the fields that differ from the usual ones; `apps` holds
    the fields of each process: gpu_uuid, pid, process_name, used_memory.
    """
    if hang:
        return "#!/bin/sh\nexec sleep 3600\n"
    if broken:
        said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
        return f'#!/bin/sh\necho "{said}"\nexit 9\n'
    gpus = [{} for _ in range(gpus)] if isinstance(gpus, int) else gpus
    usual = {
        "name": "NVIDIA A100-SXM4-40GB",
        "memory.total": 40960,
        "memory.used": 4,
        "utilization.gpu": 0,
        "compute_cap": "8.0",
        "driver_version": driver,
        "compute_mode": "Default",
        "mig.mode.current": "Disabled",
        "temperature.gpu": 34,
        "count": len(gpus),
    }
    rows = []
    for index, gpu in enumerate(gpus):
        row = {**usual, "index": index, "uuid": f"GPU-{index:08d}-0000-0000-0000-000000000000"}
        row |= gpu
        row.setdefault("memory.free", free(row))
        rows.append(row)
    apps = [{"process_name": "python", "used_memory": "[N/A]", **app} for app in apps]
    return (
        NVIDIA_SMI.replace("@gpus@", cases(rows))
        .replace("@apps@", cases([{"name": app["process_name"], **app} for app in apps]))
        .replace(
            "@list@", "".join(f"GPU {r['index']}: {r['name']} (UUID: {r['uuid']})\n" for r in rows)
        )
        .replace("@driver@", driver)
        .replace("@count-gpus@", str(len(rows)))
        .replace("@count-apps@", str(len(apps)))
    )


def free(row: dict):
    numbers = [row["memory.total"], row["memory.used"]]
    return numbers[0] - numbers[1] if all(isinstance(n, int) for n in numbers) else "[N/A]"


def cases(rows) -> str:
    """The branches of a shell `case` that know each row's fields."""
    lines = [
        f"{shlex.quote(f'{n} {field}')}) printf %s {shlex.quote(str(value))} ;;"
        for n, row in enumerate(rows)
        for field, value in row.items()
    ]
    return "\n".join(lines)


NVIDIA_SMI = r"""#!/bin/sh
# nvidia-smi, played for the tests
gpus() {
    case $1 in
@gpus@
    *) printf 'Field "%s" is not a valid field to query.\n' "${1#* }"; exit 2 ;;
    esac
}
apps() {
    case $1 in
@apps@
    *) printf 'Field "%s" is not a valid field to query.\n' "${1#* }"; exit 2 ;;
    esac
}
table() { # the rows' kind, their number, the fields
    row=0
    while [ "$row" -lt "$2" ]; do
        line=
        for field in $(echo "$3" | tr ',' ' '); do
            value=$("$1" "$row $field") || { echo "$value"; exit 2; }
            line="$line${line:+, }$value"
        done
        echo "$line"
        row=$((row + 1))
    done
}
format=
for word in "$@"; do
    case $word in --format=*) format=${word#--format=} ;; esac
done
for word in "$@"; do
    case $word in
    --query-*)
        case $format in
        csv,noheader,nounits | csv,nounits,noheader) ;;
        *) echo "this nvidia-smi knows only --format=csv,noheader,nounits" >&2; exit 2 ;;
        esac
        ;;
    esac
    case $word in
    --query-gpu=*) table gpus @count-gpus@ "${word#*=}"; exit ;;
    --query-compute-apps=*) table apps @count-apps@ "${word#*=}"; exit ;;
    -L | --list-gpus) cat <<'END'
@list@END
        exit ;;
    --format=*) ;;
    *) echo "this nvidia-smi does not know $word" >&2; exit 2 ;;
    esac
done
cat <<'END'
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI @driver@                 Driver Version: @driver@         CUDA Version: 12.4     |
+-----------------------------------------------------------------------------------------+
END
"""
