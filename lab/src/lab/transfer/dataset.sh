# Lists the files of a dataset. Variables: dataset; stage (the name of a staging folder to create, or "").
# Each ended by a NUL: the folder of the dataset, the staging folder, rsync's version, manifest.json, and for
# every file "present SIZE TIME PATH" or, in the staging folder, "staged SIZE TIME PATH".
# Needs: folders.sh

target=$data/$dataset
if [ -n "$stage" ]; then
    stage=$data/$stage-$(id -u) # users of two laptops may have the same name
    mkdir -p "$stage/files" "$stage/tmp" 2>/dev/null ||
        fail "$stage cannot be created on $hostname: check its free space and your permissions."
fi
printf '%s\0' "$target" "$stage" "$(rsync --version 2>/dev/null | head -n 1)"
cat "$target/manifest.json" 2>/dev/null
printf '\0'

files() { # KIND FOLDER: prints all but hidden files, models/ and the manifest; follows links
    cd "$2" 2>/dev/null || return
    find -L . -mindepth 1 \( -name '.*' -o -path ./models -o -path ./manifest.json \) -prune \
        -o -type f -printf "$1 %s %T@ %P\0" 2>/dev/null
}
(files present "$target")
[ -z "$stage" ] || (files staged "$stage/files")
exit 0
