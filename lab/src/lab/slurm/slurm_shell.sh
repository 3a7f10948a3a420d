# Opens a shell in the working copy as shell.sh does, which it replaces, but in an allocation of its own, which ends with
# the connection: nothing stays on a login node. More variables: asked, some_gpus (as for slurm_started.sh).
# Needs: folders.sh tmux.sh runner_scripts.sh enter_machine.sh shell_file.sh slurm_clear.sh gpus.sh slurm_gpus.sh

has srun || fail "$hostname has no srun: remove scheduler from machines.toml, or name a login node of the cluster."
write_shell
clear_slurm
set -f # a list of nodes has brackets
set -- --job-name=lab-shell --nodes=1 --ntasks=1
for option in $asked; do
    case $option in
    requeue | no-requeue | signal=*) ;; # of sbatch alone
    *) set -- "$@" "--$option" ;;
    esac
done
[ -z "$some_gpus" ] || ! partition_has_gpus || set -- "$@" --gres=gpu:1
exec srun "$@" --pty sh "$opens" -i
