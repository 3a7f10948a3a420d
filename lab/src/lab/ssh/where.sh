# Prints the absolute path of a folder in the project's. Variables: inside ("": the project's own).

cd "$folder/$inside" 2>/dev/null || fail "the project is not on $hostname yet: $lab setup."
pwd -P
