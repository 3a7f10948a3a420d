# Checks a dataset in its staging folder and moves it to its destination. Variables: dataset, stage (the folder),
# manifest (the sha256 of manifest.json). Standard input: the hashes of its files, as sha256sum -c reads them.
# Nothing is overwritten, and manifest.json comes last: without it nothing is taken for a dataset.
# Needs: folders.sh

target=$data/$dataset
has flock || fail "$hostname has no flock: install util-linux."
cat >"$stage/hashes" || fail "$stage cannot be written on $hostname: is the disk full? Nothing was put in place."
exec 9<"$data"
flock 9 # a second transfer of the same dataset waits, and then finds it complete

hash() { sha256sum <"$1" | cut -c 1-64; }
damaged() { # prints the first files in this folder that differ from the manifest
    LC_ALL=C sha256sum -c --quiet "$@" "$stage/hashes" 2>/dev/null |
        sed -n 's/: FAILED[a-z ]*$//p' | head -n 5
}
in_one_line() { printf %s "$1" | tr '\n' ' '; }

if [ -e "$target/manifest.json" ] && [ "$(hash "$target/manifest.json")" != "$manifest" ]; then
    fail "$hostname now has a different dataset $dataset: rename yours."
fi
cd "$stage/files" || exit 1
find . -name .lab-partial -prune -exec rm -rf {} +
present=''
for entry in "$target"/*; do
    case ${entry##*/} in models | manifest.json | '*') ;; *) present=yes ;; esac
done
wrong=''
[ -z "$present" ] || wrong=$(cd "$target" && damaged --ignore-missing)
[ -z "$wrong" ] ||
    fail "$target on $hostname has different files of these names, which were kept: $(in_one_line "$wrong")"
[ "$(hash manifest.json)" = "$manifest" ] || wrong=manifest.json
wrong=$wrong$(damaged ${present:+--ignore-missing})
if [ -n "$wrong" ]; then
    rm -rf "$stage"
    fail "arrived damaged on $hostname, nothing was put in place, try again: $(in_one_line "$wrong")"
fi
mkdir -p "$target" || fail "$target cannot be created on $hostname: check your permissions."
for entry in ./*; do
    if [ "$entry" = ./manifest.json ]; then
        continue
    elif [ -e "$target/$entry" ]; then
        cp -Rln "$entry" "$target/" 2>/dev/null
    else
        mv -T "$entry" "$target/$entry" || fail "$target/${entry#./} cannot be created on $hostname."
    fi
done
if [ -n "$present" ] && ! (cd "$target" && sha256sum -c --status "$stage/hashes" 2>/dev/null); then
    fail "$target on $hostname has files already, and the missing ones could not be added."
fi
if ! [ -e "$target/manifest.json" ]; then
    mv manifest.json "$target/manifest.json" || fail "$target cannot be written on $hostname."
fi
cd / && rm -rf "$stage"
