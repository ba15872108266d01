"""Who belongs to the cluster: the certificate authority, join tokens, the nodes' certificates, and their revocation.

All of it is below `ca` in the data folder, for its owner alone: `authorities` has the keys, `database` the tokens and
the nodes. `admission` decides who joins, `commands` are the operator's, beside a running supernode, and `members` is
the running supernode's view, which notices what the commands changed. Nothing here knows sessions or swarms.
"""
