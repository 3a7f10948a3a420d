# Prints the absolute path of a place in the project's folder. Variables: inside ("": the folder).

cd "$folder/$inside" 2>/dev/null || fail "the project is not on $here yet: $lab setup."
pwd -P
