# Lists the files of the model of a run. Variables: run (its id), more (*: of all runs whose id begins with it), stage
# (the name of a staging folder to create, or "").
# Each ended by a NUL: the staging folder, rsync's version, and for every file "present SIZE TIME PATH" or, in
# the staging folder, "staged SIZE TIME PATH".
# Needs: folders.sh

if [ -n "$stage" ]; then
    stage=$data/$stage-$(id -u) # users of two laptops may have the same name
    mkdir -p "$stage/files" "$stage/tmp" 2>/dev/null ||
        fail "$stage cannot be created on $hostname: check its free space and your permissions."
fi
printf '%s\0' "$stage" "$(rsync --version 2>/dev/null | head -n 1)"
for model in "$data"/*/models/"$run"$more; do
    [ ! -d "$model" ] || find -L "$model" -type f -printf 'present %s %T@ %P\0' 2>/dev/null
done
[ -z "$stage" ] || find "$stage/files" -type f -printf 'staged %s %T@ %P\0' 2>/dev/null
exit 0
