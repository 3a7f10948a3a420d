"""Slurm instead of lab's own runner: the options of a job, its batch script, what Slurm says of it.

A script slurm_X.sh here replaces X.sh on a machine with scheduler = "slurm"; where X.sh is one that
others need, it replaces functions of it. What they print is the same. A job's folder has, beside
the files of lab.jobs.job_format:

    batch.sh      what sbatch was given
    submitted     when, in seconds of the machine's clock
    slurm_id      Slurm's number of the job; of two submissions only that one runs
    attempt       number of the attempt that may write
    began.N       TIME HOST SLURM-ID of attempt N
    listens.N     made by the command of attempt N: it writes a checkpoint on USR1 and TERM
    interrupted.N made by it as well: it has written one, and can go on
    step.N        srun has started it
    ended.N       CODE TIME of attempt N; then "heard", if Slurm has sent SIGTERM to all of it
    again.N       it came to nothing: srun failed, or SIGTERM came before the command listened
    slurm_end     how it ended, where an exit code does not say it: a word of Slurm, or "forgotten"
"""
