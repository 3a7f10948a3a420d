# Finds what a job left in its checkout; for the runner, lab fetch and lab clean. Variable: data.

# left_files CHECKOUT: new and changed files, each ended by a NUL; deleted ones can be made again. Fails if git fails
left_files() {
    git -C "$1" -c core.fsmonitor= ls-files -z --others &&
        git -C "$1" -c core.fsmonitor= -c filter.lfs.clean= -c filter.lfs.process= -c filter.lfs.required=false \
            diff HEAD -z --name-only --no-renames --diff-filter=d
}

# drop_links CHECKOUT: copies names from stdin to stdout, without the links into the folder of datasets that lab record
# makes
drop_links() (
    cd "$1" && sed -z 's|^|./|' |
        xargs -0 -r sh -c 'find "$@" -maxdepth 0 ! -lname "$0/*" -print0' "$(readlink -f "$data")"
)

# list_results CHECKOUT: the files that lab fetch brings; also ignored ones, but no caches and no hidden files
list_results() {
    left_files "$1" 2>/dev/null | grep -zv '__pycache__/\|\(^\|/\)\.' | drop_links "$1"
}
