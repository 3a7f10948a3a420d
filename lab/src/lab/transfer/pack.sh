# Prints files as a tar stream. Variables: base (their folder), links (yes: follow them).
# Standard input: their names, each ended by a NUL. Those that vanished meanwhile are left out.

cd "$base" || fail "$base on $hostname no longer exists."
tar ${links:+-h} --hard-dereference --format=posix --no-recursion --ignore-failed-read --null -T - -cf - 2>/dev/null
exit 0
