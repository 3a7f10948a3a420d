# Stores commits in repo.git. Variables: commit; sent (yes: a bundle comes on standard input), base (the
# commit that the bundle builds on). Exit codes: 75 if base may be missing, so that everything has to be
# sent; 74 if git cannot take the commits.

repo=$folder/repo.git

# quiet_git ARGUMENT ...: git in English, without background processes, and without the user's hooks,
# conversion of line ends, settings that forbid repo.git or a bundle, and git-lfs, as files are sent with
# their content
quiet_git() {
    LC_ALL=C git -c core.hooksPath=/dev/null -c core.autocrlf=false -c gc.auto=0 -c maintenance.auto=false \
        -c checkout.workers=0 -c advice.detachedHead=false -c safe.bareRepository=all \
        -c protocol.file.allow=always -c filter.lfs.clean= -c filter.lfs.smudge= -c filter.lfs.process= \
        -c filter.lfs.required=false "$@"
}

cause() { # MESSAGE: why git failed, and how to fix a damaged repository
    printf %s "$(printf '%s\n' "$1" | grep -m 1 '^error\|^fatal')"
    case $1 in
    *corrupt* | *"bad object"* | *"invalid reference"* | *"failed to unpack tree"* | *"unable to read sha1"* | \
        *"short to be a packfile"* | *"does not match index"*)
        printf '. %s' "$repo is damaged: move it and $folder/work away, then run $lab setup"
        ;;
    esac
}

git_failed() { # WHY
    printf 'lab: git on %s %s\n' "$hostname" "$1" >&2
    exit 74
}

take_commit() {
    has git || fail "$hostname has no git, which receives the code: install it."
    [ -d "$folder" ] || mkdir -p "$folder" || fail "$folder cannot be created on $hostname: check your permissions."
    if ! [ -d "$repo" ]; then
        git init --quiet --bare --template= "$repo.$$" && mv "$repo.$$" "$repo" ||
            fail "$repo cannot be created on $hostname: check its free space and your permissions."
    fi
    # if the folder was moved, repository and worktrees look for each other at the old path
    # (git worktree repair needs git 2.30, and many machines have an older one)
    if read -r gitdir 2>/dev/null <"$repo/worktrees/work/gitdir" && ! [ -e "$gitdir" ]; then
        for worktree in "$repo"/worktrees/*; do
            read -r was <"$worktree/gitdir" && is=$folder${was#"${gitdir%/work/.git}"} && [ -f "$is" ] || continue
            printf 'gitdir: %s\n' "$worktree" >"$is" && printf '%s\n' "$is" >"$worktree/gitdir"
        done
    fi
    if [ "$sent" = yes ]; then
        find "$repo" -maxdepth 1 -name 'incoming.*' -mmin +1440 -exec rm -f {} + # of lost connections
        bundle=$repo/incoming.$hostname.$$
        cat >"$bundle" || {
            rm -f "$bundle"
            fail "the code cannot be written to $repo on $hostname: check its free space and your permissions."
        }
        ref=refs/lab/snapshots/$commit
        said=$(quiet_git -C "$repo" fetch --quiet --no-tags "$bundle" "+$ref:$ref" 2>&1)
        code=$?
        rm -f "$bundle"
        if [ $code != 0 ] && [ -n "$base" ]; then exit 75; fi
        [ $code = 0 ] || git_failed "cannot take the code: $(cause "$said")"
        return
    fi
    said=$(quiet_git -C "$repo" update-ref "refs/lab/snapshots/$commit" "$commit" 2>&1) && return
    [ -z "$base" ] || exit 75
    git_failed "cannot keep the code: $(cause "$said")"
}
