# Tells whether a job that starts now would get its GPUs. Variables: gpus (how many; some: one, if there are any).
# Prints "free", "none" (some, but the machine has none), or "busy" or "never" and why.
# Needs: folders.sh jobs.sh gpus.sh queue.sh

[ "$gpus" != 0 ] || { echo free && exit 0; }
id='' born=$(started $$)
decide_number
if [ -z "$gpus" ]; then
    echo none
elif choose_gpus && my_turn; then
    echo free
elif [ "$have" -lt "$gpus" ]; then
    echo "never $hostname has only $have GPUs"
else
    echo "busy ${why%;}"
fi
