# How a job stands.

read -r boot </proc/sys/kernel/random/boot_id

# started PID: prints when the process started, in the kernel's ticks; fails if it does not exist
started() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    case $1 in Z | X) return 1 ;; esac
    shift 19
    printf '%s\n' "$1"
}

# read_end JOB-FOLDER: sets fact_code and fact_end, unless the disk has damaged them
read_end() {
    [ -e "$1/exit_code" ] && read -r fact_code fact_end <"$1/exit_code"
    case $fact_code$fact_end in *[!0-9]*) fact_code='' fact_end='' ;; esac
}

# describe JOB-FOLDER: prints its facts, separated by tabs, with job.json last
describe() {
    find_facts "$1"
    spec=''
    read -r spec <"$1/job.json"
    print_facts "$1" "$spec"
}

print_facts() { # JOB-FOLDER JOB.JSON
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${1##*/}" "$fact_code" "$fact_start" "$fact_end" \
        "$alive" "$stopped" "$fact_gpus" "$fact_phase" "$fact_wrote" "$2"
}

# find_facts JOB-FOLDER: sets the variables of print_facts
find_facts() {
    fact_code='' fact_end='' fact_pid='' fact_boot='' fact_born='' fact_start='' fact_host=''
    fact_phase='' fact_gpus='' fact_wrote='' alive='' stopped=''
    read_end "$1"
    [ -e "$1/pid" ] && read -r fact_pid fact_boot fact_born fact_start fact_host <"$1/pid"
    [ -e "$1/gpus" ] && read -r fact_gpus <"$1/gpus"
    [ -e "$1/wrote" ] && read -r fact_wrote <"$1/wrote"
    case $fact_wrote in *[!0-9]*) fact_wrote='' ;; esac
    [ -e "$1/stop" ] && stopped=yes
    case $fact_pid$fact_born$fact_start in *[!0-9]*) fact_pid='' fact_start='' ;; esac
    [ -e "$1/phase" ] && read -r fact_phase <"$1/phase"
    if [ -z "$fact_code" ]; then
        if [ -z "$fact_pid" ]; then
            alive=never
        elif [ "$fact_boot" = "$boot" ]; then
            [ "$(started "$fact_pid")" = "$fact_born" ] && alive=yes || alive=no
            # the runner may have ended just now
            read_end "$1"
        elif [ "$fact_host" != "$hostname" ]; then
            alive=elsewhere
        else
            alive=rebooted
        fi
    fi
}
