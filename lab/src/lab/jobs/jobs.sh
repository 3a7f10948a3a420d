# Finds the state of jobs.

read -r boot </proc/sys/kernel/random/boot_id
tab='	' newline='
'

# read_stat PID: sets stat to the fields of a process, from its state on; fails if it does not exist
read_stat() {
    stat=''
    # its name comes first, and may have line breaks and brackets
    while read -r stat_line; do stat="$stat $stat_line"; done 2>/dev/null <"/proc/$1/stat" || return 1
    case $stat in *') '*) stat=${stat##*) } ;; *) return 1 ;; esac
}

# started PID: prints when the process started, in the kernel's ticks; fails if it does not exist
started() {
    read_stat "$1" || return 1
    # shellcheck disable=SC2086
    set -- $stat
    case $1 in Z | X) return 1 ;; esac
    shift 19
    printf '%s\n' "$1"
}

# describe JOB-FOLDER ...: prints a line for each job, the fields of job_format.py separated by tabs. One awk reads the
# files of all, as sh takes ten times longer for many small ones; sh finds the state of those that have not ended
describe() {
    lines=''
    for one; do
        [ -e "$one/job.json" ] || continue # it is still being created
        find_facts "$one"
        if [ "$alive" != ended ]; then one="$one$tab$alive$tab$fact_start$tab$fact_phase"; fi
        lines=$lines$one$newline
    done
    printf %s "$lines" | LC_ALL=C awk -F '\t' -v OFS='\t' '
        function read_line(name,  path, line) { # the first line of a file; "" if there is none
            path = $1 "/" name
            line = ""
            exists = (getline line <path) >= 0
            close(path)
            return line
        }
        function is_there(name) { read_line(name); return exists }
        function read_numbers(name,  line) { # sets words; none if the line is damaged
            line = read_line(name)
            split(line ~ /[^0-9 ]/ ? "" : line, words, " ")
        }
        {
            spec = read_line("job.json") # "" if it is not readable
            code = end = ""; alive = $2; start = $3; phase = $4
        }
        NF == 1 {
            read_numbers("exit_code")
            code = words[1]; end = words[2]
            alive = code == "" ? "damaged" : ""
            phase = read_line("phase")
            split(read_line("pid"), words, " ")
            start = words[1] words[3] words[4] ~ /[^0-9]/ ? "" : words[4]
            if (!exists) { # Slurm ran it
                read_numbers("submitted")
                start = words[1]
                if (exists && !is_there("began.1")) phase = "queued"
                slurm_end = read_line("slurm_end")
                if (exists) alive = "slurm:" slurm_end
            }
        }
        {
            stopped = is_there("stop") ? "yes" : ""
            gpus = read_line("gpus")
            read_numbers("wrote")
            wrote = words[1]
            read_numbers("attempt")
            # Slurm or the kernel killed what would have counted
            killed = words[1] == "" ? alive ~ /^(no|rebooted)$/ : alive ~ /^(slurm:.*)?$/ && !is_there("ended." words[1])
            if (wrote == "" && killed && phase ~ /^running/ && is_there("code/.git")) wrote = "?"
            sub(/.*\//, "", $1)
            print $1, code, start, end, alive, stopped, gpus, phase, wrote, spec
        }'
}

# find_facts JOB-FOLDER: sets alive: "ended" if it has an exit code; otherwise sets fact_start and fact_phase as well
find_facts() {
    alive=ended
    [ ! -e "$1/exit_code" ] || return 0
    fact_pid='' fact_boot='' fact_born='' fact_start='' fact_host='' fact_phase=''
    [ -e "$1/pid" ] && read -r fact_pid fact_boot fact_born fact_start fact_host <"$1/pid"
    case $fact_pid$fact_born$fact_start in *[!0-9]*) fact_pid='' fact_start='' ;; esac
    [ -e "$1/phase" ] && read -r fact_phase <"$1/phase"
    if [ -z "$fact_pid" ]; then
        alive=never
    elif [ "$fact_boot" = "$boot" ]; then
        [ "$(started "$fact_pid")" = "$fact_born" ] && alive=yes || alive=no
    elif [ "$fact_host" != "$hostname" ]; then
        alive=elsewhere
    else
        alive=rebooted
    fi
    [ ! -e "$1/exit_code" ] || alive=ended # just now
}
