"""Run deep-learning experiments, record them, and repeat them, on this computer and on machines.

Experiments and notebooks import four modules; their docstrings are the reference:

    lab.tracking    an experiment whose runs are recorded
    lab.records     the recorded runs: tables, curves, comparisons
    lab.remote      jobs on a machine, from a notebook
    lab.project     the project's names and folders

Everything else is in sub-packages; the first line of each file says what it is for. A sub-package
imports only those below it (a contract in lab/pyproject.toml, which `make check` enforces):

    cli             the lab command
    doctor          what is wrong, and what fixes it
    browser         JupyterLab and TensorBoard
    workcopy        the working copy on a machine, for editors
    transfer        copying records, models and datasets
    jobs            jobs on a machine
    runs            reading records
    recording       writing them, by Sacred
    code            the working tree as a commit, and sending it
    adoption        taking in a repository that no template made
    ssh             the machines, and one connection for each
    slurm           Slurm's options, its batch script, and its answers
    environment     kernel, lock, repository
    datasets        folders of files with a manifest
    example         taking a new project's example out
    ground          the project's folder, files, git, processes, the terminal

Scripts that run on a machine (*.sh) lie beside the Python that sends them.
"""
