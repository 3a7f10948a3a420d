# Puts a dataset in place that has arrived in its staging folder. Variables: dataset, stage (its
# path), manifest (the sha256 of manifest.json). Standard input: the hashes of its files, as sha256sum -c takes them.
# Nothing is overwritten, and manifest.json comes last: without it nothing is taken for a dataset.
# Needs: places.sh

target=$data/$dataset
has flock || fail "$hostname has no flock; it comes with util-linux."
cat >"$stage/hashes" || fail "$stage on $hostname cannot be written: is the disk full? Nothing is in place."
exec 9<"$data"
flock 9 # of two that send the same dataset the second finds it there

hash() { sha256sum <"$1" | cut -c 1-64; }
damaged() { # what is not as the manifest says, in this folder
    LC_ALL=C sha256sum -c --quiet "$@" "$stage/hashes" 2>/dev/null |
        sed -n 's/: FAILED[a-z ]*$//p' | head -n 5
}

if [ -e "$target/manifest.json" ] && [ "$(hash "$target/manifest.json")" != "$manifest" ]; then
    fail "meanwhile somebody else has put another $dataset on $hostname; yours needs another name."
fi
cd "$stage/files" || exit 1
find . -name .lab-partial -prune -exec rm -rf {} +
before=''
for split in $splits; do [ -e "$target/$split" ] && before=yes; done
wrong=''
[ -z "$before" ] || wrong=$(cd "$target" && damaged --ignore-missing)
[ -z "$wrong" ] ||
    fail "$target on $hostname has other files of these names, and they stay: $(printf %s "$wrong" | tr '\n' ' ')"
[ "$(hash manifest.json)" = "$manifest" ] || wrong=manifest.json
wrong=$wrong$(damaged ${before:+--ignore-missing})
if [ -n "$wrong" ]; then
    rm -rf "$stage"
    fail "arrived damaged on $hostname, nothing is in place, try again: $(printf %s "$wrong" | tr '\n' ' ')"
fi
mkdir -p "$target" || fail "$target cannot be made on $hostname: no right to write there?"
for split in $splits; do
    if [ ! -d "$split" ]; then
        continue
    elif [ -e "$target/$split" ]; then
        cp -Rln "$split" "$target/" 2>/dev/null
    else
        mv -T "$split" "$target/$split" || fail "$target/$split cannot be made on $hostname."
    fi
done
if [ -n "$before" ] && ! (cd "$target" && sha256sum -c --status "$stage/hashes" 2>/dev/null); then
    fail "$target on $hostname has files already, and those that are missing could not be added."
fi
if ! [ -e "$target/manifest.json" ]; then
    mv manifest.json "$target/manifest.json" || fail "$target on $hostname cannot be written."
fi
cd / && rm -rf "$stage"
