"""The web console at /ui/: what it shows of a cluster, its files, and who is logged in. It reads and changes nothing.

`summary` has the rows that /v1/status, /v1/nodes and the console share. Handlers are in supernode.api.console.
"""
