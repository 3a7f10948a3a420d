"""Jobs on a machine: started once, their state, their output, their end."""
