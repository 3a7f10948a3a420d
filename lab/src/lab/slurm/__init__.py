"""Slurm instead of lab's own runner: the options of a job, its batch script, what Slurm says of it.

On a machine with scheduler = "slurm", slurm_X.sh replaces X.sh, or redefines functions of it where
other scripts need X.sh. Both print the same. A job's folder has, beside the files of
lab.jobs.job_format:

    batch.sh      what sbatch was given
    submitted     when it was, in seconds of the machine's clock
    slurm_id      Slurm's number of the job; if it was submitted twice, only this one runs
    attempt       number of the current attempt, the only one that may write
    began.N       TIME HOST SLURM-ID of attempt N
    listens.N     made by the command of attempt N: it writes a checkpoint on USR1 and TERM
    interrupted.N made by it too: it has written one, and can resume
    step.N        made when srun has started it
    ended.N       CODE TIME of attempt N; then "heard", if Slurm has sent SIGTERM to all of it
    again.N       made if it did nothing: srun failed, or SIGTERM came before the command listened
    slurm_end     how it ended, if the exit code does not say: a word of Slurm, or "forgotten"
"""
