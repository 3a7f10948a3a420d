# The end of a job's output.

# show_last FILE LINES: prints its size and the size of what is left out, in bytes; then its last lines
show_last() {
    size=$(wc -c <"$1") # it may grow meanwhile
    shown=$(head -c "$size" "$1" | tail -n "$2" | wc -c)
    echo "$size $((size - shown))"
    # a progress bar overwrites its line after \r: only what it showed last
    tail -c "+$((size - shown + 1))" "$1" | head -c "$shown" |
        LC_ALL=C sed -e 's/\r*$//' -e 's/.*\r//'
}
