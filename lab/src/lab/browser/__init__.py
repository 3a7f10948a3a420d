"""JupyterLab and TensorBoard in this computer's browser."""
