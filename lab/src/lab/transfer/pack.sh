# Files as a tar stream. Variables: base (their folder), links (yes: of a link, what it leads to).
# Standard input: their names, each ended by a NUL. Those that have gone meanwhile are left out.

cd "$base" || fail "there is no $base on $hostname any more."
tar ${links:+-h} --hard-dereference --format=posix --no-recursion --ignore-failed-read --null -T - -cf - 2>/dev/null
exit 0
