# Unsets Slurm's variables that a profile or an outer job has set: sbatch and srun would obey them.

clear_slurm() {
    for name in $(env | sed -nE 's/^((SLURM|SBATCH|SRUN)_[A-Za-z0-9_]*)=.*/\1/p'); do
        [ "$name" = SLURM_CONF ] || unset "$name"
    done
}
