# What lab doctor asks a login node about Slurm: prints facts as facts.sh does.
# Needs: gpus.sh room.sh slurm_clear.sh

clear_slurm
# fact NAME COMMAND ...: what the command prints is the fact
fact() {
    printf '%s:\n' "$1"
    shift
    ("$@") 2>/dev/null </dev/null | sed 's/^/ /;200q'
}

# partitions: "NAME NODES IDLE GPUS FREE TIMELIMIT" of each; free are only those of nodes that work
partitions() {
    limits=$(limit 20 sinfo -h -o '%R %l' | sort -u) || return
    nodes=$(limit 20 sinfo -h -N -O 'Partition:60,NodeList:60,Gres:100,GresUsed:100,StateLong:30') || return
    printf '%s\n' "$limits" "$nodes" | awk '
        function gpus(text,  parts, n, i, words, sum) {
            gsub(/\([^)]*\)/, "", text)
            n = split(text, parts, ","); sum = 0
            for (i = 1; i <= n; i++) if (parts[i] ~ /^gpu/) sum += split(parts[i], words, ":") > 1 ? words[split(parts[i], words, ":")] : 1
            return sum
        }
        NF == 2 { time[$1] = $2; names[++count] = $1; next }
        NF == 5 {
            sub(/\*$/, "", $1); nodes[$1]++; total[$1] += gpus($3)
            if ($5 ~ /^(idle|mixed|allocated)$/) free[$1] += gpus($3) - gpus($4)
            if ($5 == "idle") idle[$1]++
        }
        END { for (i = 1; i <= count; i++) { one = names[i]; print one, nodes[one] + 0, idle[one] + 0, total[one] + 0, free[one] + 0, time[one] } }'
}

# limits: of this user; "none" without accounting
limits() {
    if has sacctmgr && found=$(limit 20 sacctmgr -n -P show assoc "user=$(id -un)" format=Account,Partition,QOS,GrpTRES,MaxTRES,MaxJobs,MaxSubmit,MaxWall); then
        printf '%s\n' "$found" | awk -F '|' '
            BEGIN { split("account partition qos GrpTRES MaxTRES MaxJobs MaxSubmit MaxWall", names, " ") }
            { line = ""; for (i = 1; i <= NF && i <= 8; i++) if ($i != "") line = line (line ? " " : "") names[i] "=" $i; print line }'
    else
        echo none
    fi
}

# folder_quota: "KILOBYTES MAX INODES MAX" of this user on the disk of folder, 0 for no limit; "none" without quota and
# lfs. Both print the same columns: disk, used, soft and hard limit, grace, and the last four for inodes
folder_quota() {
    path=$(nearest "$folder")
    disk=$(df -P "$path" | awk 'NR == 2 { print $1 }')
    if [ "$(stat -f -c %T "$path")" = lustre ] && has lfs; then
        said=$(limit 8 lfs quota -q -u "$(id -un)" "$path" | tr '\n' ' ') # it breaks a long line
        disk=$(printf '%s\n' "$said" | awk '{ print $1 }')
    elif has quota; then
        said=$(limit 8 quota -w -p) # its code is 1 if one is used up
        [ $? -lt 2 ] || return
    else
        echo none && return
    fi
    printf '%s\n' "$said" | awk -v disk="$disk" '
        function allowed(soft, hard) { return hard > 0 ? hard : soft }
        $1 == disk && NF >= 9 {
            gsub(/\*/, "")
            print $2 + 0, allowed($3, $4) + 0, $6 + 0, allowed($7, $8) + 0; found = 1
        }
        END { if (!found) print "0 0 0 0" }'
}

fact slurm sbatch --version
fact partitions partitions
fact limits limits
fact folder_quota folder_quota
exit 0
