# Checks a model in its staging folder and moves it to its destination. Variables: run, dataset, stage (the folder).
# Standard input: the hashes of its files, as sha256sum -c reads them. Nothing is overwritten.
# Needs: folders.sh

models=$data/$dataset/models
cd "$stage/files" || exit 1
find . -name .lab-partial -prune -exec rm -rf {} +
if ! said=$(LC_ALL=C sha256sum -c --quiet 2>/dev/null); then
    rm -rf "$stage"
    wrong=$(printf '%s\n' "$said" | sed -n 's/: FAILED[a-z ]*$//p' | head -n 5 | tr '\n' ' ')
    fail "the model of $run arrived damaged on $hostname, nothing was put in place, try again: $wrong"
fi
mkdir -p "$models" || fail "$models cannot be created on $hostname: check your permissions."
cd / || exit 1
mv -T "$stage/files" "$models/$run" 2>/dev/null || [ -d "$models/$run" ] || # another transfer was faster
    fail "$models cannot be written on $hostname: check your permissions."
rm -rf "$stage"
