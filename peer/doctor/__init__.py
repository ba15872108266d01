"""What is wrong on the way from a container client of this node to the registry, and the command that mends it.

`probes` (of the peer, the supernode, registries, clients) find facts, and change nothing. `judgement` says what they
mean, without asking anybody. It is the operator's; no service uses it.
"""
