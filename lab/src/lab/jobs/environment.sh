# The environment of a project's lock, for setup.sh, runner.sh and facts.sh. Variables: folder.

# find_environment PROJECT: sets python and environment, by its pyproject.toml and requirements.txt
find_environment() {
    lock=$(sha256sum <"$1/requirements.txt" | cut -c 1-12)
    python=$(sed -n 's/^python = "\([^"]*\)".*/\1/p' "$1/pyproject.toml" | head -n 1)
    environment=$folder/envs/$python-$lock
}

# environment_ready: is it complete? It uses the machine's Python, which an upgrade may have removed
environment_ready() { [ -e "$environment/lab-environment.json" ] && [ -x "$environment/bin/python" ]; }

python_is_new_enough() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; }

# bootstrap PROJECT OPTION ...: becomes its bootstrap.py, run by the machine's Python or else by uv
bootstrap() {
    script=$1/bootstrap.py
    shift
    if python_is_new_enough; then exec python3 "$script" --venv "$environment" "$@"; fi
    exec uv run --no-project --python "$python" "$script" --venv "$environment" "$@"
}
