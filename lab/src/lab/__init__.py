"""How experiments are run and recorded, here and on remote machines.

What experiments and notebooks import are four modules; their docstrings are the reference:

    lab.tracking    an experiment whose runs are recorded
    lab.records     the recorded runs: tables, curves, comparisons
    lab.remote      jobs on a machine, from a notebook
    lab.project     the project's names and folders

Everything else is behind them, in rooms; the first line of each file says what it is for. A room
uses only those below it (tests/test_walls.py):

    cli             the lab command
    browser         JupyterLab and TensorBoard
    workcopy        the working copy on a machine, for editors
    doctor          what is wrong, and what fixes it
    transfer        records, models and datasets brought across
    jobs            jobs on a machine
    runs            reading records
    recording       writing them, by Sacred
    code            the working tree as a commit, and sending it
    ssh             the machines, and one connection for each
    environment     kernel, lock, repository
    ground          the project's folder, files, git, processes, text

Scripts that run on a machine (*.sh) lie beside the Python that sends them.
"""
