"""Datasets on this computer: a folder of files with a manifest, which says what they are."""
