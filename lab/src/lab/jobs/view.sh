# Shows a job's output in a terminal until the job ends; Ctrl-C goes to the job.
cd "$(dirname "$0")" || exit 1
read -r pid rest <pid
trap 'kill -s INT -- "-$pid" 2>/dev/null' INT
tail -n 1000 -F --pid="$pid" output.log & # in the background, so that Ctrl-C does not reach it
tail=$!
while kill -0 $tail 2>/dev/null; do wait $tail; done
if [ -e exit_code ]; then
    read -r code rest <exit_code
    echo "[ended with $code]"
fi
