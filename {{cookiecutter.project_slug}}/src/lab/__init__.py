"""How experiments are run and recorded: the team's half, updated from the template."""
