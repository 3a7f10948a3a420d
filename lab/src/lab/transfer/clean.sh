# Lists what may be removed, or removes it. Variables: remove (yes), project, models (yes: also models and records
# that have some), format (of the jobs that this lab knows). Standard input: what to remove, lines "KIND NAME".
# Prints, each ended by a NUL, "KIND BYTES INODES NAME"; KIND is checkout, written (a checkout in which its job left
# files), environment, snapshot, record or model (one that was brought without its record). For written, record and
# model, the hash of the list of files and their number follow NAME: the local side asks to remove one only if it has
# all of its files.
# Needs: folders.sh jobs.sh code.sh environment.sh left_files.sh

[ -d "$folder" ] || exit 0
work=$folder/work/$project
newline='
'
wanted=$newline$(cat)$newline

if [ -n "$remove" ]; then
    # nothing starts meanwhile: start.sh holds this lock until the job is visible, setup.sh the other one
    make_lock_file "$folder/jobs/.lock"
    exec 9>>"$folder/jobs/.lock"
    flock -w 100 9 || fail "another job is still being started on $hostname: try again."
fi
make_lock_file "$folder/envs/.lock"
exec 7>>"$folder/envs/.lock"
flock -n 7 || envs_busy=yes # an environment is being made

throw_away() { # PATH: renames it now; it is removed when the locks are released
    gone=${1%/*}/.removed-${1##*/}.$hostname.$$
    mv "$1" "$gone"
}

measure() { # PATH ...: prints the bytes and inodes that their removal frees; other hard links keep a file
    find "$@" -printf '%y %n %b\n' 2>/dev/null |
        awk '$1 == "d" || $2 == 1 { bytes += $3 * 512; inodes++ } END { printf "%.0f %d", bytes, inodes }'
}

is_mine() { [ -z "$(find "$@" ! -user "$(id -u)" -print -quit)" ]; } # PATH ...: with everything inside

offer() { # KIND NAME PATH ...: prints it, or removes it if it was asked for
    kind=$1 name=$2
    shift 2
    if [ -n "$remove" ]; then
        case $wanted in *"$newline$kind $name$newline"*) ;; *) return 1 ;; esac
    fi
    sizes=$(measure "$@")
    if [ -n "$remove" ]; then for path; do throw_away "$path" || return 1; done; fi
    printf '%s %s %s\0' "$kind" "$sizes" "$name"
}

# --- jobs: their checkouts, and what running jobs need --------------------------------------------

# name_left CHECKOUT: prints the names of the files that a job left there, in lines; the last is ./ if git fails
name_left() {
    { { left_files "$1" || printf '\0'; } | drop_links "$1" || printf './\0'; } 2>/dev/null | tr '\n\0' ' \n'
}

# jobs with processes, also those that have ended but left one behind
running=$(cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | sed -n 's/^LAB_JOB=//p' | sort -u)
live=$newline live_specs='' kept_commits=$newline kept_environments=$newline

has_ended() { # JOB-FOLDER
    case $newline$running$newline in *"$newline${1##*/}$newline"*) return 1 ;; esac
    written_in=$(sed -n '1s/^{"format": \([0-9]\{1,9\}\)[,}].*/\1/p' "$1/job.json")
    [ "${written_in:-0}" -le "$format" ] || return 1
    find_facts "$1"
    case $alive in ended | no | rebooted | slurm:*) ;; *) return 1 ;; esac
}

for job in "$folder"/jobs/*/; do
    job=${job%/}
    id=${job##*/}
    [ -e "$job/job.json" ] || continue
    if ! has_ended "$job"; then
        live=$live$id$newline
        live_specs=$live_specs$(cat "$job/job.json")
        inside=$(sed -n "s/^project='\{0,1\}\([^']*\)'\{0,1\}\$/\1/p" "$job/job.sh" | head -n 1)
        if [ -e "$job/code/${inside:-.}/pyproject.toml" ]; then
            find_environment "$job/code/${inside:-.}"
            kept_environments=$kept_environments$environment$newline
        fi
    elif [ -d "$job/code" ]; then
        left=$(name_left "$job/code")
        lines=$newline$left
        if [ "$lines" = "${lines%"$newline./"}" ] && is_mine "$job/code"; then
            count=$(printf %s "$left" | grep -vc __pycache__/)
            if [ "$count" = 0 ]; then
                set -- checkout "$id"
            else
                listed=$(cd "$job/code" && left_files . | drop_links . | xargs -0 sh -c 'find "$@" -printf "%y %s %T@ %p\0"' sh |
                    sort -z | sha256sum | cut -c 1-64)
                set -- written "$id $listed $count"
            fi
            if offer "$@" "$job/code"; then
                [ -z "$remove" ] || rm -f "$job/wrote" # lab jobs no longer says that there is something to fetch
                continue
            fi
        fi
    fi
    kept_commits=$kept_commits$(quiet_git -C "$job/code" rev-parse HEAD 2>/dev/null)$newline
done

# --- environments that neither the working copy nor a job nor a process uses ----------------------

for link in "$folder/work/.venv" "$work/.venv"; do
    kept_environments=$kept_environments$(readlink "$link" 2>/dev/null)$newline
done
if [ -e "$work/pyproject.toml" ]; then
    find_environment "$work"
    kept_environments=$kept_environments$environment$newline
fi
for environment in "$folder"/envs/*/; do
    environment=${environment%/}
    if ! [ -d "$environment" ] || [ -n "${envs_busy:-}" ]; then continue; fi
    case $kept_environments in *"$newline$environment$newline"*) continue ;; esac
    # the path comes through a pipe: on the command line, grep would find itself
    printf '%s/' "$environment" |
        grep -qasF -f /dev/stdin /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/maps 2>/dev/null && continue
    if is_mine "$environment"; then offer environment "${environment##*/}" "$environment"; fi
done

# --- records that no running job uses -------------------------------------------------------------

for run in "$folder"/runs/*/; do
    run=${run%/}
    id=${run##*/}
    [ -e "$run/run.json" ] || continue
    by=$(sed -n 's/.*"lab": "\([^"]*\)".*/\1/p' "$run/run.json" | head -n 1)
    case $live in *"$newline$by$newline"*) continue ;; esac
    case $live_specs in *"$id"*) continue ;; esac # a job resumes it
    set -- "$run"
    for model in "$data"/*/models/"$id"; do if [ -e "$model" ]; then set -- "$@" "$model"; fi; done
    [ $# = 1 ] || [ -n "$models" ] || continue
    is_mine "$@" || continue
    listed=$(find "$@" -printf '%y %s %T@ %p\0' | sort -z | sha256sum | cut -c 1-64)
    count=$(find "$@" ! -type d -printf x | wc -c)
    offer record "$id $listed $count" "$@"
done

# --- models that were brought without their record, if no job reads them or is about to -----------

for model in "$data"/*/models/*/; do
    model=${model%/}
    id=${model##*/}
    if [ -z "$models" ] || [ "$live" != "$newline" ] || ! [ -d "$model" ] || [ -e "$folder/runs/$id" ]; then continue; fi
    case $id in *[!A-Za-z0-9._-]*) continue ;; esac
    if [ -L "$model" ] || ! is_mine "$model" || [ -z "$(find "$model" -prune -mmin +60)" ]; then continue; fi
    listed=$(find "$model" -printf '%y %s %T@ %p\0' | sort -z | sha256sum | cut -c 1-64)
    offer model "$id $listed $(find "$model" ! -type d -printf x | wc -c)" "$model"
done

# --- snapshots that no checkout has ---------------------------------------------------------------

for file in "$folder/work/.git" "$folder/.work.synced"; do
    [ -e "$file" ] || continue
    case $file in
    */.git) commit=$(quiet_git -C "$folder/work" rev-parse HEAD 2>/dev/null) ;;
    *) read -r commit <"$file" ;;
    esac
    kept_commits=$kept_commits$commit$newline
done
unpinned=''
if [ -d "$repo" ] && [ -O "$repo" ]; then
    [ -z "$remove" ] || quiet_git -C "$repo" worktree prune
    for commit in $(quiet_git -C "$repo" for-each-ref --format='%(refname)' refs/lab/snapshots); do
        commit=${commit##*/}
        case $kept_commits in *"$newline$commit$newline"*) continue ;; esac
        if [ -n "$remove" ]; then
            case $wanted in *"${newline}snapshot $commit$newline"*) ;; *) continue ;; esac
            quiet_git -C "$repo" update-ref -d "refs/lab/snapshots/$commit" || continue
            unpinned=yes
        fi
        printf 'snapshot 0 1 %s\0' "$commit"
    done
fi
if [ -n "$unpinned" ]; then
    make_lock_file "$folder/.work.lock"
    exec 8>>"$folder/.work.lock"
    if flock -w 10 8; then # no lab sync brings commits meanwhile
        before=$(measure "$repo")
        quiet_git -C "$repo" gc --quiet --prune=now >/dev/null 2>&1
        after=$(measure "$repo")
        printf 'repository %d %d repo.git\0' $((${before% *} - ${after% *})) $((${before#* } - ${after#* }))
    fi
fi
exec 7>&- 8>&- 9>&-
[ -n "$remove" ] || exit 0
# also what an earlier call left when its connection was lost
rm -rf "$folder"/jobs/*/.removed-code.* "$folder"/envs/.removed-* "$folder"/runs/.removed-* "$data"/*/models/.removed-*
exit 0
