# What a job has left in its checkout; for the runner, lab fetch and lab clean. Variable: data.

# left_files CHECKOUT: new and changed files, each ended by a NUL; what is deleted can be made again. Fails if git does
left_files() {
    git -C "$1" -c core.fsmonitor= ls-files -z --others &&
        git -C "$1" -c core.fsmonitor= -c filter.lfs.clean= -c filter.lfs.process= -c filter.lfs.required=false \
            diff HEAD -z --name-only --no-renames --diff-filter=d
}

# drop_links CHECKOUT: passes these names on, without links into the folder of datasets, which lab record makes
drop_links() (
    cd "$1" && sed -z 's|^|./|' |
        xargs -0 -r sh -c 'find "$@" -maxdepth 0 ! -lname "$0/*" -print0' "$(readlink -f "$data")"
)

# list_results CHECKOUT: what lab fetch brings of it; also what git ignores, but no caches and nothing hidden
list_results() {
    left_files "$1" 2>/dev/null | grep -zv '__pycache__/\|\(^\|/\)\.' | drop_links "$1"
}
