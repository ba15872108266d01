"""Real processes, networks and registries for the demo, the benchmarks and the tests.

The services never import it.
"""
