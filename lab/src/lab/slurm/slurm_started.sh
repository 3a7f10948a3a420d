# Starts a job with sbatch, once, where started.sh starts a runner. Variables: batch (its batch script),
# asked (the options of the machine and of lab run), some_gpus (yes: one, if the partition has any).
# Needs: gpus.sh environment.sh enter_machine.sh slurm_clear.sh slurm_gpus.sh

await_start() { :; } # Slurm decides when it starts
has sbatch || fail "$hostname has no sbatch: remove scheduler from machines.toml, or name a login node of the cluster."
clear_slurm

take_number() { (set -C && printf '%s\n' "$1" >"$job/slurm_id") 2>/dev/null; }

# find_submitted: whether Slurm has the job, as an answer may have been lost. Fails with 1 if not, 2 if Slurm does not
# answer
find_submitted() {
    [ ! -e "$job/slurm_id" ] || return 0
    listed=$(limit 30 squeue -h -t all -n "lab-$id" -o '%A|%T' 2>/dev/null) || return 2
    # a job that sbatch refused may be listed too, as failed
    [ -e "$job/began.1" ] || listed=$(printf '%s\n' "$listed" | grep -v '|FAILED$')
    [ -n "$listed" ] || return 1
    number=$(printf '%s\n' "$listed" | sed 's/|.*//' | sort -n | head -n 1)
    take_number "$number" || read -r number <"$job/slurm_id"
}

# make_environment: on the login node, as the job may have no network; its output goes to the job's
make_environment() {
    code=$job/code/$project
    find_environment "$code"
    environment_ready && return
    exec 9>&- # it may take minutes
    mkdir -p "$folder/envs"
    (
        run_prelude "$job" || { echo "$prelude_says" && exit 1; }
        flock 7
        environment_ready || bootstrap "$code" --source "$folder/work/$project" --no-kernel --no-git
    ) 7>>"$folder/envs/.lock" >>"$job/output.log" 2>&1 </dev/null
    environment_ready ||
        undo "the environment of this job's lock could not be created on $hostname: $(tail -n 3 "$job/output.log" | tr '\n' ' ')"
    exec 9>>"$folder/jobs/.lock"
    flock -w 100 9 || fail "another job is still being started on $hostname: try again."
}

# offers: prints what the partitions offer
offers() {
    limit 20 sinfo -h -o '%R|%l|%D|%c|%m|%G' 2>/dev/null | head -n 20 | awk -F '|' '
        { gpus = $6 == "(null)" ? "no GPUs" : $6
          printf "%s%s (time up to %s, %s nodes with %s CPUs, %s MB, %s)", (NR > 1 ? ", " : ""), $1, $2, $3, $4, $5, gpus }'
}

# refuse WHY: fails and removes the job
refuse() { undo "Slurm on $hostname $1. Sent: ${asked:-no options}. It has: $(offers)."; }

# find_problem: prints why Slurm would accept the job but never start it, judging by its partitions
find_problem() {
    limit 20 scontrol show partition -o 2>/dev/null | awk -v asked="$asked" '
        function seconds(text,  days, part, n) {
            if (text !~ /^[0-9:-]+$/) return -1
            n = 0; days = 0
            if (split(text, part, "-") == 2) { days = part[1]; text = part[2]; n = 1 }
            if (n) { split(text, part, ":"); return days * 86400 + part[1] * 3600 + part[2] * 60 + part[3] }
            n = split(text, part, ":")
            if (n == 1) return part[1] * 60
            if (n == 2) return part[1] * 60 + part[2]
            return part[1] * 3600 + part[2] * 60 + part[3]
        }
        BEGIN {
            split(asked, words, " ")
            for (i in words) { at = index(words[i], "="); if (at) sent[substr(words[i], 1, at - 1)] = substr(words[i], at + 1) }
            n = split(sent["partition"], names, ","); for (i in names) wanted[names[i]]
        }
        {
            delete has
            for (i = 1; i <= NF; i++) { at = index($i, "="); has[substr($i, 1, at - 1)] = substr($i, at + 1) }
            if (n ? !(has["PartitionName"] in wanted) : has["Default"] != "YES") next
            seen++
            max = seconds(has["MaxTime"]); time = seconds(sent["time"])
            m = split(has["AllowAccounts"], accounts, ","); allowed = !("account" in sent) || has["AllowAccounts"] == "ALL"
            for (i = 1; i <= m; i++) if (accounts[i] == sent["account"]) allowed = 1
            if (has["State"] != "UP") why = "would never start it: partition " has["PartitionName"] " is " has["State"]
            else if ("time" in sent && max >= 0 && time > max)
                why = "would never start it: time=" sent["time"] " exceeds the " has["MaxTime"] " of partition " has["PartitionName"]
            else if (!allowed)
                why = "would never start it: account=" sent["account"] " may not use partition " has["PartitionName"] ", but " has["AllowAccounts"]
            else good++
        }
        END { if (seen && !good) print why }'
}

start_runner() {
    [ ! -e "$job/slurm_id" ] || return 0
    if [ ! -e "$job/submitted" ]; then
        make_environment
        [ ! -e "$job/submitted" ] || return 0 # meanwhile by another lab run of this job
        problem=$(find_problem)
        [ -z "$problem" ] || refuse "$problem"
        more=''
        [ -z "$some_gpus" ] || ! partition_has_gpus || more='#SBATCH --gres=gpu:1'
        # shellcheck disable=SC2154
        printf '%s\n' "$batch" | awk -v more="$more" '{ print } NR == 1 && more { print more }' >"$job/batch.sh" &&
            date +%s >"$job/submitted" || undo "the job cannot be started on $hostname: is its disk full?"
    elif find_submitted; then
        return 0
    elif [ $? = 2 ]; then
        fail "job $id may have been submitted on $hostname, but squeue does not answer: see $lab jobs."
    fi
    said=$(cd "$job" && limit 60 sbatch --parsable --chdir="$job" --output="$job/output.log" batch.sh "$job" 2>&1)
    number=$(printf '%s\n' "$said" | sed -n 's/^\([0-9]\{1,\}\)\(;.*\)\{0,1\}$/\1/p' | tail -n 1)
    if [ -n "$number" ]; then
        take_number "$number" || read -r number <"$job/slurm_id"
        reason=$(limit 20 squeue -h -j "$number" -o %r 2>/dev/null)
        case $reason in
        PartitionTimeLimit | PartitionConfig | PartitionNodeLimit | InvalidAccount | InvalidQOS | AccountNotAllowed | QOSNotAllowed | "Job's account not"*)
            limit 20 scancel "$number" && refuse "would never start it: $reason"
            ;;
        esac
        return 0
    fi
    find_submitted && return 0
    [ $? = 1 ] || fail "sbatch on $hostname does not answer ($(printf '%s' "$said" | tail -n 1)): job $id may have been submitted: see $lab jobs."
    refuse "refuses the job: $(printf '%s\n' "$said" | sed -n 's/^sbatch: error: //p' | sed 's/\.$//' | paste -sd ';' - | sed 's/;/; /g')"
}
