# Finds the state of a Slurm job; after jobs.sh, whose find_facts it replaces. `alive` may also be unasked (Slurm does
# not answer), or slurm:WORDS for how it ended.
# Needs: folders.sh gpus.sh slurm_clear.sh slurm_queue.sh

LATE=120 # seconds that a shared file system may take to show what was written

whole() { printf '%s\n' "$2" >"$1.$hostname.$$" && mv "$1.$hostname.$$" "$1"; } 2>/dev/null # FILE WORDS

# ask_end JOB-FOLDER: asks Slurm, once, about a job that is no longer in its queue; sets alive
ask_end() {
    if [ -e "$1/slurm_end" ]; then
        alive=slurm:$(cat "$1/slurm_end")
        return
    fi
    number=''
    [ -e "$1/slurm_id" ] && read -r number <"$1/slurm_id"
    case $number in
    '' | *[!0-9]*)
        alive=slurm:forgotten # its submission was interrupted, and Slurm has none of that name
        return
        ;;
    esac
    said=$(clear_slurm && limit 20 scontrol show job "$number" -o 2>&1) || {
        case $said in
        *"Invalid job id"*) ;;
        *) alive=unasked && return ;;
        esac
        said=$(clear_slurm && limit 20 sacct -n -X -P -j "$number" -o State,ExitCode 2>/dev/null | tail -n 1)
        said="JobState=${said%%[ |]*} ExitCode=${said##*|} "
    }
    word=${said##*JobState=} word=${word%% *}
    exit=${said##* ExitCode=} exit=${exit%% *}
    case $word in
    PENDING | RUNNING | CONFIGURING | COMPLETING | SUSPENDED | REQUEUE* | RESIZING | SIGNALING | STAGE_OUT | STOPPED)
        alive=yes # it is back in the queue
        return
        ;;
    COMPLETED | FAILED) ;;
    CANCELLED | TIMEOUT | PREEMPTED | NODE_FAIL | OUT_OF_MEMORY | BOOT_FAIL | DEADLINE) ;;
    *) word=forgotten ;;
    esac
    case $exit in *[!0-9:]* | '' | *:*:*) exit=0:0 ;; esac
    code=${exit%:*}
    [ "${exit#*:}" = 0 ] || code=$((128 + ${exit#*:}))
    ended_at=${said##* EndTime=} ended_at=$(date -d "${ended_at%% *}" +%s 2>/dev/null || echo 0)
    [ ! -e "$1/exit_code" ] || { alive=ended && return; } # just now
    case $word in
    forgotten) code=$(read_attempt "$1") ;;
    COMPLETED) # this is about the batch script, which first writes the command's code: its own tells nothing
        [ $((now - ended_at)) -ge $LATE ] || { alive=yes && return; }
        code=$(read_attempt "$1")
        ;;
    esac
    word=$(printf %s "$word" | tr A-Z a-z)
    whole "$1/slurm_end" "$word${code:+ $code}"
    alive="slurm:$word${code:+ $code}"
    if [ "$word" != forgotten ] && [ -n "$code" ]; then
        [ "$ended_at" != 0 ] || ended_at=$now
        { printf '%-40s\n' "$code $ended_at" 1<>"$1/exit_code.new"; } && mv "$1/exit_code.new" "$1/exit_code"
        [ ! -e "$1/exit_code" ] || alive=ended
    fi 2>/dev/null
}

# read_attempt JOB-FOLDER: prints the code that the last attempt wrote, if it did
read_attempt() {
    [ -e "$1/attempt" ] && read -r last <"$1/attempt" && [ -e "$1/ended.$last" ] &&
        read -r ended _ <"$1/ended.$last" && case $ended in '' | *[!0-9]*) ;; *) printf '%s\n' "$ended" ;; esac
}

find_facts() {
    alive=ended
    [ ! -e "$1/exit_code" ] || return 0
    fact_start='' fact_phase=''
    [ -e "$1/submitted" ] && read -r fact_start <"$1/submitted"
    case $fact_start in *[!0-9]*) fact_start='' ;; esac
    [ -e "$1/phase" ] && read -r fact_phase <"$1/phase"
    [ -e "$1/began.1" ] || fact_phase=queued
    if [ -e "$1/slurm_end" ]; then
        alive=slurm:$(cat "$1/slurm_end")
    else
        ask_queue
        found=$(find_in_queue "${1##*/}" 2>/dev/null)
        changed=$(stat -c %Y "$1/slurm_id" 2>/dev/null || echo "${fact_start:-0}")
        if [ -n "$found" ] && [ "$queue_code" = 0 ]; then
            alive=yes
            since=${fact_phase#running }
            case $since in *[!0-9]*) since=0 ;; esac
            case $found in
            *'|PENDING|'*) [ "${since:-0}" -ge "$queue_at" ] || fact_phase="queued $(say_why "$found")" ;;
            *) [ "${since:-0}" != 0 ] || fact_phase="queued Slurm starts it" ;;
            esac
        elif [ "${changed:-0}" -ge "$queue_at" ]; then
            alive=yes # Slurm was last asked before it was submitted
            case $fact_phase in running*) ;; *) fact_phase="queued Slurm has it" ;; esac
        elif [ "$queue_code" != 0 ]; then
            alive=unasked
        else
            [ ! -e "$1/exit_code" ] || { alive=ended && return; } # just now
            ask_end "$1"
        fi
    fi
}

# say_why LINE: prints why a job waits, from Slurm's reason
say_why() {
    IFS='|' read -r _ _ reason begins partition nodes <<LINE
$1
LINE
    case $reason in
    Resources) why="no idle node in $partition${nodes:+: $nodes}" ;;
    Priority) why="jobs of higher priority in $partition come first${nodes:+: $nodes}" ;;
    None) why="Slurm has not looked at it yet" ;;
    BeginTime) why="it waits for its begin time, as after a requeue" ;;
    Dependency) why="it waits for the attempt before it" ;;
    PartitionTimeLimit) why="it never starts: its time exceeds the limit of $partition" ;;
    InvalidAccount | InvalidQOS | AccountNotAllowed | QOSNotAllowed | "Job's account not"*) why="it never starts: $reason" ;;
    PartitionDown | PartitionInactive) why="partition $partition is down" ;;
    ReqNodeNotAvail*) why="the nodes it wants are down, drained or reserved${nodes:+: $nodes}" ;;
    JobHeldUser) why="it is held: scontrol release starts it" ;;
    JobHeldAdmin) why="the administrator holds it" ;;
    Assoc* | QOS*) why="your account's or QOS's limit is reached ($reason)" ;;
    *) why="Slurm says $reason" ;;
    esac
    case $begins in '' | N/A) ;; *) why="$why; Slurm's estimate of its start: $begins" ;; esac
    printf '%s\n' "$why"
}
