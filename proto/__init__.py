"""The vocabulary both services share. It imports nothing of theirs."""

# A library of the same name exists. The programs look for this mark at start-up and say so when it is missing.
LAYERCAST_VOCABULARY = True
# Read by the build too (pyproject.toml).
VERSION = "0.1.0"
