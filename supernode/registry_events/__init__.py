"""What registries tell of pushes, and the preheats that come of it.

An event grants nothing: it is a hint that a tag may name something new. notifications and harbor read what comes,
rules choose, queue decides, processing carries out, tag_scan finds what no event told. provider speaks for Harbor's
preheat policies.
"""
