"""Records, models and datasets brought across, checked."""
