"""How experiments are run and recorded: the team's half, updated from the template.

The first line of each file says what it is for. Together they are:

    the command          cli, cli_machine, cli_records, cli_remote, cli_transfer, cli_tunnels,
                         completion, tables
    the project          project, git, kernel, notebook_filter
    recording a run      tracking, recorder, record_files, metrics_file, capture, capture_helper,
                         ranks, interrupts, liveness, sacred_import, mongo
    what it came from    provenance, code_state, snapshot
    reading records      records, listing, selection, reproduce, comparison, export
    a machine            machines, connection, framing, ssh_errors, ssh_config
    what is wrong        doctor, facts, checks, checks_there
    the copy there       workspace, ide, mount
    jobs                 launch, jobs, known_jobs, remote (for notebooks)
    bringing across      fetch, fetch_plan, datasets, transfer, rsync_shell
    in the browser       notebook, tensorboard_here, tunnels, tunnel_keeper

What runs on a machine is in scripts/.
"""
