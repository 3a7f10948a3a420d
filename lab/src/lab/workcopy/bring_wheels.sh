# Takes the wheels of the lock, on a machine that reaches no package index. Variables: action.
# ask: prints "NAME VALUE" for each thing that decides which wheels fit, and "have SHA256 FILE" or "staged SHA256
# FILE" for each that is there. take: standard input has "SHA256  FILE" for each that was sent to the stage; they are
# verified, and moved to wheels/; uv is unpacked from its own.
# Needs: folders.sh gpus.sh

wheels=$folder/wheels
stage=$wheels/incoming
if [ "$action" = ask ]; then
    mkdir -p "$stage/files" "$stage/tmp" || fail "$stage cannot be created on $hostname: see $lab doctor."
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
    printf 'machine %s\nglibc %s\nstage %s\n' "$(uname -m)" "${libc#glibc 2.}" "$stage"
    printf 'rsync %s\n' "$(rsync --version 2>/dev/null | head -n 1)"
    driver=$(smi --query-gpu=driver_version) && printf 'driver %s\n' "$(echo "$driver" | head -n 1)"
    for known in "have $wheels" "staged $stage/files"; do
        cd "${known#* }" && for file in *.whl; do
            [ ! -e "$file" ] || printf '%s %s %s\n' "${known%% *}" "$(sha256sum <"$file" | cut -d ' ' -f 1)" "$file"
        done
    done
    exit 0
fi
cd "$stage/files" || exit 1
damaged=$(LC_ALL=C sha256sum -c 2>/dev/null | sed -n 's/: FAILED.*//p')
for file in $damaged; do rm -f "$file"; done
[ -z "$damaged" ] || fail "$(echo "$damaged" | xargs) arrived damaged on $hostname: run $lab setup again."
for file in *.whl; do
    [ ! -e "$file" ] || mv "$file" "$wheels/" || fail "$wheels cannot be written on $hostname."
done
rm -rf "$stage"
cd "$wheels" || exit 1
uv=${XDG_CACHE_HOME:-$HOME/.cache}/dl-remote-template/uv/bin/uv # where bootstrap.py looks for it
[ -x "$uv" ] && exit 0
mkdir -p "${uv%/*}"
for wheel in uv-*.whl; do
    {
        python3 -c 'import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
(name,) = [name for name in wheel.namelist() if name.endswith("/scripts/uv")]
sys.stdout.buffer.write(wheel.read(name))' "$wheel" >"$uv.new" 2>/dev/null || unzip -p "$wheel" '*/scripts/uv' >"$uv.new"
    } && chmod 755 "$uv.new" && mv "$uv.new" "$uv" && exit 0
done
fail "uv cannot be unpacked on $hostname: see $lab doctor."
