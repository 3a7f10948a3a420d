# Brings the working copy for editors to a commit, after saving what was edited in it as another commit.
# Variables: commit, sent, back (yes: only save), known (saved edits that this user's computer has), now (the time, which
# names new ones). Standard input: a bundle.
# Prints "state NAME", "edits NAME" for each that this user's computer lacks, "nested NAME" for each repository inside the
# copy, which is left alone, an empty line, and the bundle of the edits.
# Needs: code.sh

work=$folder/work
edits=refs/lab/edits
make_lock_file "$folder/.work.lock"
exec 9>>"$folder/.work.lock"
flock -w 100 9 || fail "another lab sync is still changing $work on $hostname: try again later."
take_commit
state=synced nested=''
synced=$(cat "$folder/.work.synced" 2>/dev/null) || synced='' # the commit of the last sync

tree_of() { quiet_git rev-parse --verify --quiet "$1^{tree}"; }

# git runs this for each notebook that it adds. lab setup writes the name of this machine's kernel
# into notebooks, so one that differs from HEAD's only by its kernel was not edited. If this fails,
# git adds the notebook as it is.
as_sent='set -e; cat >"$draft.new"; git cat-file blob HEAD:%f >"$draft.old" 2>/dev/null
    without_kernel() { sed "/^ *\"kernelspec\": {$/,/}/d" "$draft.$1"; }
    if [ "$(without_kernel new)" = "$(without_kernel old)" ]; then cat "$draft.old"; else cat "$draft.new"; fi'

# save_ignored: also adds ignored files where the commit has something of the same path
save_ignored() {
    quiet_git diff --cached -z --name-only --no-renames --diff-filter=D "$commit" -- |
        xargs -0 -r sh -c '
            for name; do
                path="" rest=$name/
                while [ -n "$rest" ]; do
                    path=$path${path:+/}${rest%%/*}
                    rest=${rest#*/}
                    if [ -L "$path" ] || [ ! -d "$path" ]; then break; fi
                done
                if [ -e "$path" ] || [ -L "$path" ]; then printf "%s\0" "$path"; fi
            done' sh |
        xargs -0 -r git --literal-pathspecs add --force --
}

# save_edits: commits everything that is not ignored, unless a commit has it already; sets tree
save_edits() {
    head=$(quiet_git rev-parse --verify --quiet HEAD) || head=''
    output=$(quiet_git -c filter.notebook-output.clean="$as_sent" add --all 2>&1) ||
        fail "git on $hostname cannot read all of $work: $(cause "$output")"
    # of a repository inside this one git would save nothing but a link
    nested=$(quiet_git ls-files --stage | sed -n 's/^160000 [^	]*	//p')
    quiet_git ls-files --stage -z | sed -zn 's/^160000 [^	]*	//p' | xargs -0 -r git update-index --force-remove --
    save_ignored || fail "git on $hostname cannot save the ignored files that are in the way in $work."
    tree=$(quiet_git write-tree) || fail "git on $hostname cannot save what was edited in $work."
    if [ "$tree" = "$(tree_of "$commit")" ] && { [ "$head" = "$commit" ] || [ "$head" = "$synced" ]; }; then
        return
    fi
    if [ -n "$synced" ] && [ "$tree" = "$(tree_of "$synced")" ] && [ "$head" = "$synced" ]; then
        return
    fi
    saved=$head
    if [ -z "$head" ] || [ "$tree" != "$(tree_of "$head")" ]; then
        parent=${head:+-p $head}
        # the same edits on the same commit are saved once
        saved=$(quiet_git for-each-ref --format='%(tree) %(parent) %(objectname)' "$edits" |
            sed -n "s/^$tree $head //p" | head -n 1)
        # shellcheck disable=SC2086
        [ -n "$saved" ] || saved=$(GIT_AUTHOR_NAME=lab GIT_AUTHOR_EMAIL=lab@localhost \
            GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@localhost \
            quiet_git commit-tree --no-gpg-sign $parent -m "Edited on $hostname" "$tree") ||
            fail "git on $hostname cannot save what was edited in $work."
    fi
    quiet_git for-each-ref --format='%(objectname)' "$edits" | grep -qx "$saved" ||
        quiet_git update-ref "$edits/$now-$(printf %.7s "$saved")" "$saved" || fail "git on $hostname cannot save a commit."
}

if ! [ -f "$work/.git" ]; then # a folder .git belongs to a clone that somebody made
    if [ -d "$work" ] && [ -n "$(ls -A "$work")" ]; then
        fail "$work on $hostname is not empty and was not created by lab: move it away."
    fi
    [ -z "$back" ] || fail "there is no $work on $hostname yet: $lab setup creates it."
    quiet_git -C "$repo" worktree prune
    output=$(quiet_git -C "$repo" worktree add --quiet --detach "$work" "$commit" 2>&1) ||
        fail "$work cannot be created on $hostname: $(cause "$output")"
    state=made
else
    cd "$work" || exit 1
    quiet_git rev-parse --git-dir >/dev/null 2>&1 ||
        fail "$work on $hostname has lost its repository, $repo: move it away, then $lab setup creates a new one."
    index=$(quiet_git rev-parse --git-path index)
    draft=$folder/.index.$$
    export draft
    trap 'rm -f "$draft" "$draft".*' EXIT
    if [ -e "$index" ]; then cp -p "$index" "$draft"; fi
    GIT_INDEX_FILE=$draft
    export GIT_INDEX_FILE
    save_edits
    if [ -n "$back" ]; then
        state=saved
    elif [ "$tree" = "$(tree_of "$commit")" ] && [ "$(quiet_git rev-parse HEAD)" = "$commit" ]; then
        state=unchanged
    else
        # git refuses if a file has been edited since it was saved, a moment ago
        output=$(quiet_git read-tree -m -u "$tree" "$commit" 2>&1) || case $output in
        *"not uptodate"* | *"would be overwritten"* | *"would be removed"*)
            fail "$work on $hostname is being edited right now, and was not changed: $(cause "$output")" ;;
        *) fail "only a part of $work on $hostname is up to date: $(cause "$output"). Fix that, then $lab sync." ;;
        esac
        mv "$draft" "$index"
        output=$(quiet_git update-ref --no-deref HEAD "$commit" 2>&1) ||
            fail "the files of $work on $hostname are up to date, but not its HEAD: $(cause "$output")"
    fi
fi
[ -n "$back" ] || [ "$synced" = "$commit" ] || printf '%s\n' "$commit" >"$folder/.work.synced"
unset GIT_INDEX_FILE

printf 'state %s\n' "$state"
[ -z "$nested" ] || printf '%s\n' "$nested" | sed 's/^/nested /'
set --
for ref in $(quiet_git -C "$repo" for-each-ref --format='%(refname)' "$edits"); do
    case " $known " in *" ${ref##*/} "*) continue ;; esac
    printf 'edits %s\n' "${ref##*/}"
    set -- "$@" "$ref"
done
printf '\n'
[ $# = 0 ] || quiet_git -C "$repo" bundle create --quiet - "$@"
