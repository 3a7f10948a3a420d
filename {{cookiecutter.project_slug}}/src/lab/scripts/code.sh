# Takes commits into repo.git. Variables: commit; sent (whether a bundle comes on standard input), base
# (what the bundle builds on). Exit code 75: that may not be here, and all has to be sent.

repo=$folder/repo.git

# git without the user's hooks, which might do anything, and line ends of another kind; with nothing
# left in the background, in English
quiet_git() {
    LC_ALL=C git -c core.hooksPath=/dev/null -c core.autocrlf=false -c gc.auto=0 -c maintenance.auto=false \
        -c checkout.workers=0 -c advice.detachedHead=false "$@"
}

cause() { printf '%s\n' "$1" | grep -m 1 '^error\|^fatal'; } # of what git said

take_commit() {
    has git || fail "$here has no git, which brings the code there: install it."
    mkdir -p "$folder" || fail "$folder cannot be made on $here: no right to write there?"
    if ! [ -d "$repo" ]; then
        git init --quiet --bare --template= "$repo.$$" && mv "$repo.$$" "$repo" ||
            fail "$repo cannot be made on $here: disk full, or no right to write there?"
    fi
    if [ "$sent" = yes ]; then
        find "$repo" -maxdepth 1 -name 'incoming.*' -mmin +1440 -exec rm -f {} + # of cut lines
        bundle=$repo/incoming.$here.$$
        cat >"$bundle" || {
            rm -f "$bundle"
            fail "the code cannot be written to $repo on $here: disk full, or no right to write there?"
        }
        ref=refs/lab/snapshots/$commit
        said=$(quiet_git -C "$repo" fetch --quiet --no-tags "$bundle" "+$ref:$ref" 2>&1)
        code=$?
        rm -f "$bundle"
        if [ $code != 0 ] && [ -n "$base" ]; then exit 75; fi
        [ $code = 0 ] || fail "git on $here cannot take the code: $(cause "$said")"
    fi
    said=$(quiet_git -C "$repo" update-ref "refs/lab/snapshots/$commit" "$commit" 2>&1) && return
    [ -z "$base" ] || exit 75
    fail "git on $here cannot keep the code: $(cause "$said")"
}
