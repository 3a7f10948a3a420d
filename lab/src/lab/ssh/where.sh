# Prints the absolute path of a folder in the project. Variables: inside (the folder; "": the project itself).

cd "$folder/$inside" 2>/dev/null || fail "the project is not on $hostname yet: run $lab setup."
pwd -P
