# Unpacks a tar stream into a staging folder. Variables: stage. Standard input: the stream.
# Exit code 28: the disk is full.

cd "$stage/files" || exit 1
output=$(LC_ALL=C tar -xf - 2>&1) && exit 0
case $output in *"No space left"* | *"quota exceeded"*) exit 28 ;; esac
fail "tar on $hostname: $(printf '%s\n' "$output" | tail -n 1)"
