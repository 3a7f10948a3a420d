# Hashes files. Variables: base (their folder). Standard input: their names, each ended by a NUL.
# Prints "HASH  NAME", each ended by a NUL, for those that exist.

cd "$base" || fail "$base on $hostname no longer exists."
# Python's use the processor's own instructions, which makes them five times as fast as many sha256sum
if python3 -c 'import hashlib' 2>/dev/null; then
    exec python3 -c '
import hashlib, sys
out = sys.stdout.buffer
for name in sys.stdin.buffer.read().split(b"\0")[:-1]:
    digest = hashlib.sha256()
    try:
        with open(name, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError:
        continue
    out.write(digest.hexdigest().encode() + b"  " + name + b"\0")
out.flush()
'
fi
xargs -0 -r sha256sum -z -- 2>/dev/null
exit 0
